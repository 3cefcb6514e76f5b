"""What an inference takes for an input, and what it says of what is none."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
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


def test_masks_beside_their_images_are_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.nii.gz", "a_seg.nii.gz", "a-label.nii", "b_seg.nii.gz", "gt.nii.gz")
    (tmp_path / "c.nii.gz").write_bytes(b"")
    written = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    written.header["descrip"] = b"BiPVL-Seg"
    nib.save(written, tmp_path / "d.nii.gz")
    assert [item["case"] for item in inference_items(tmp_path)] == ["a", "b_seg", "c", "gt"]
    assert "3 files are taken for masks and not segmented: a-label.nii, a_seg.nii.gz, d.nii.gz" in caplog.text


def test_datalist_with_bare_paths(dataset: Path) -> None:
    assert [item["case"] for item in inference_items(dataset / "dataset.json")] == ["heart_8", "heart_9"]
    assert len(inference_items(dataset / "dataset.json", "training")) == 4


def test_nothing_there_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing at '.*/none'; expected an image \(\.nii\.gz, \.nii, \.nrrd"):
        inference_items(tmp_path / "none")


def test_folder_without_nifti_raises(tmp_path: Path) -> None:
    touch(tmp_path, "a.dcm", "._x.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"holds no image .* among its 1 files. Nor do its subfolders"):
        inference_items(tmp_path)


def test_data_sets_root_raises_and_points_at_its_datalist(dataset: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Give its dataset\.json"):
        inference_items(dataset)


def test_unsupported_type_raises(tmp_path: Path) -> None:
    touch(tmp_path, "scan.dcm")
    with pytest.raises(ValueError, match=r"scan\.dcm' is no input that can be read: expected an image"):
        inference_items(tmp_path / "scan.dcm")


def test_two_files_that_would_share_an_output_raise(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "a.nii.gz")
    with pytest.raises(ValueError, match="Case 'a' is twice in folder"):
        inference_items(tmp_path)


def test_images_of_one_name_are_told_apart_by_their_cases(tmp_path: Path) -> None:
    touch(tmp_path, "p1/scan.nii.gz", "p2/scan.nii.gz")
    cases = [{"image": f"{p}/scan.nii.gz", "case": p} for p in ("p1", "p2")]
    datalist = tmp_path / "dataset.json"
    datalist.write_text(json.dumps({"test": cases}))
    assert [item["case"] for item in inference_items(datalist)] == ["p1", "p2"]


def test_folder_for_each_case_without_its_label(tmp_path: Path) -> None:
    touch(tmp_path, "p1/img.nii.gz", "p1/seg.nii.gz", "p2/ct.nii", "notes/a.txt", ".trash/x.nii.gz")
    expected = [("p1", tmp_path / "p1/img.nii.gz"), ("p2", tmp_path / "p2/ct.nii")]
    assert inference_items(tmp_path) == [{"image": str(path), "case": case} for case, path in expected]


def test_folder_of_a_case_with_several_images(tmp_path: Path) -> None:
    touch(tmp_path, "p1/a.nii.gz", "p1/b.nii.gz")
    with pytest.raises(ValueError, match=r"p1' holds 2 images \(a.nii.gz, b.nii.gz\); expected one"):
        inference_items(tmp_path)


def test_channel_files_of_nnunet(tmp_path: Path) -> None:
    touch(tmp_path, "b_0001.nii.gz", "b_0000.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz")
    files = [[str(tmp_path / f"{case}_000{channel}.nii.gz") for channel in (0, 1)] for case in "ab"]
    assert inference_items(tmp_path, channels=2) == [{"image": f, "case": c} for f, c in zip(files, "ab", strict=True)]


@pytest.mark.parametrize("names", [["amos_0000", "amos_0001"], ["amos_0001"], ["a_0000", "b"]])
def test_numbers_that_are_no_channels(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *(f"{name}.nii.gz" for name in names))
    assert [item["case"] for item in inference_items(tmp_path)] == names
    touch(tmp_path / "one", "x_0000.nii.gz", "y_0000.nii.gz")
    assert [item["case"] for item in inference_items(tmp_path / "one")] == ["x", "y"]


def test_link_that_leads_nowhere_is_a_case_and_not_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz")
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    assert [item["case"] for item in inference_items(tmp_path)] == ["a", "b"]


def test_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a\nb.nii.gz")
    with pytest.raises(ValueError, match=r"The name of a case in folder '.*' has the invisible character U\+000A"):
        inference_items(tmp_path)
