"""What an inference takes for an input, and what it says of what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.inference.inputs import inference_items


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A datalist of four labelled training cases, and two test images as bare paths."""
    cases = [f"heart_{n}.nii.gz" for n in (4, 3, 2, 1)]
    touch(tmp_path, *(f"{folder}/{case}" for case in cases for folder in ("imagesTr", "labelsTr")))
    touch(tmp_path, "imagesTs/heart_8.nii.gz", "imagesTs/heart_9.nii.gz")
    training = [{"image": f"./imagesTr/{case}", "label": f"./labelsTr/{case}"} for case in cases]
    test = ["./imagesTs/heart_8.nii.gz", "./imagesTs/heart_9.nii.gz"]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": training, "test": test}))
    return tmp_path


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii"])
def test_one_file(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    assert inference_items(tmp_path / name) == [{"image": str(tmp_path / name), "case": "scan"}]


def test_folder_is_read_in_order_without_hidden_files_subfolders_and_others(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii.gz", "a.nii", "._b.nii.gz", "notes.txt", "sub/c.nii.gz")
    assert [item["case"] for item in inference_items(tmp_path)] == ["a", "b"]


def test_datalist_with_bare_paths(dataset: Path) -> None:
    assert [item["case"] for item in inference_items(dataset / "dataset.json")] == ["heart_8", "heart_9"]
    assert len(inference_items(dataset / "dataset.json", "training")) == 4


def test_nothing_there_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing at '.*/none'; expected a NIfTI file \(\.nii\.gz, \.nii\)"):
        inference_items(tmp_path / "none")


def test_folder_without_nifti_raises(tmp_path: Path) -> None:
    touch(tmp_path, "a.dcm", "._x.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"holds no NIfTI file .* among its 1 files. Subfolders are not"):
        inference_items(tmp_path)


def test_data_sets_root_raises_and_points_at_its_datalist(dataset: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Give its dataset\.json"):
        inference_items(dataset)


def test_unsupported_type_raises(tmp_path: Path) -> None:
    touch(tmp_path, "scan.dcm")
    with pytest.raises(ValueError, match=r"scan\.dcm' is no input that can be read: expected a NIfTI"):
        inference_items(tmp_path / "scan.dcm")


def test_two_files_that_would_share_an_output_raise(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "a.nii.gz")
    with pytest.raises(ValueError, match="Case 'a' is twice in folder"):
        inference_items(tmp_path)


def test_two_images_of_one_name_raise_before_one_result_overwrites_the_other(tmp_path: Path) -> None:
    touch(tmp_path, "p1/scan.nii.gz", "p2/scan.nii.gz")
    cases = [{"image": f"{p}/scan.nii.gz", "case": p} for p in ("p1", "p2")]
    datalist = tmp_path / "dataset.json"
    datalist.write_text(json.dumps({"test": cases}))
    with pytest.raises(ValueError, match=r"two images named 'scan'.*overwrite each other"):
        inference_items(datalist)
