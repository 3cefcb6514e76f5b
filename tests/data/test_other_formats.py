"""NRRD, MetaImage and FreeSurfer's files are read as the same volume in NIfTI, and damage in them is found."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from scripts.data.fingerprints import fingerprint
from scripts.data.loading import load_volume
from scripts.data.nifti import UnusableFile, affine_in_mm, load_nifti, read_header
from scripts.inference.inputs import inference_items

VOXELS = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4) - 20
COS, SIN = np.cos(0.3), np.sin(0.3)
AFFINE = np.eye(4)
AFFINE[:3, :3] = np.array([[COS, -SIN, 0], [SIN, COS, 0], [0, 0, 1]]) @ np.diag([-0.8, 0.9, 2.5])
AFFINE[:3, 3] = 10, -20, 30
KINDS = ("a.nrrd", "raw.nrrd", "a.mha", "raw.mha", "a.mgz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One volume in each format, by ITK's own writers, compressed or not."""
    folder = tmp_path_factory.mktemp("formats")
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), folder / "a.nii.gz")
    nib.save(nib.MGHImage(VOXELS, AFFINE), folder / "a.mgz")
    itk = pytest.importorskip("itk")
    image = itk.imread(str(folder / "a.nii.gz"))
    for suffix in ("nrrd", "mha"):
        itk.imwrite(image, str(folder / f"a.{suffix}"), compression=True)
        itk.imwrite(image, str(folder / f"raw.{suffix}"))
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_is_the_same_volume(folder: Path, name: str) -> None:
    found, header = load_nifti(folder / name), read_header(folder / name)
    assert np.array_equal(np.asarray(found.dataobj), VOXELS)
    assert np.asarray(found.dataobj).dtype == header.get_data_dtype() == np.int16
    for one in (found.header, header):
        assert np.allclose(affine_in_mm(one), AFFINE, atol=1e-5)
    loaded, expected = load_volume(folder / name), load_volume(folder / "a.nii.gz")
    assert np.array_equal(loaded, expected)
    assert np.allclose(loaded.affine, expected.affine, atol=1e-5)
    case = {"image": str(folder / name), "case": "a"}
    assert fingerprint(case) == fingerprint({**case, "image": str(folder / "a.nii.gz")})


def test_channels_come_last(folder: Path, tmp_path: Path) -> None:
    itk = pytest.importorskip("itk")
    pair = np.stack([VOXELS, VOXELS + 1], axis=-1).astype(np.float32)
    itk.imwrite(itk.image_from_array(pair.transpose(2, 1, 0, 3).copy(), is_vector=True), str(tmp_path / "two.nrrd"))
    assert read_header(tmp_path / "two.nrrd").get_data_shape() == (6, 5, 4, 2)
    assert np.array_equal(np.asarray(load_nifti(tmp_path / "two.nrrd").dataobj), pair)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mgz"])
def test_a_flipped_bit_or_a_lost_end_is_found(folder: Path, tmp_path: Path, name: str) -> None:
    content, rng = (folder / name).read_bytes(), random.Random(0)
    path = tmp_path / name
    for _ in range(40):
        damaged = bytearray(content)
        damaged[len(content) - 1 - rng.randrange(120)] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(damaged))
        try:
            assert np.array_equal(np.asarray(load_nifti(path).dataobj), VOXELS)
        except UnusableFile as error:
            assert str(path) in str(error)  # noqa: PT017 - either is right
    for lost in (1, 30, len(content) - 40):
        path.write_bytes(content[:-lost])
        with pytest.raises(UnusableFile, match=path.name):
            load_nifti(path)


@pytest.mark.parametrize("name", ["raw.nrrd", "raw.mha"])
def test_uncompressed_voxels_that_are_cut_off_are_found(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes((folder / name).read_bytes()[:-7])
    with pytest.raises(UnusableFile, match="expected 240 bytes of voxels, found 233: it is cut off"):
        load_nifti(tmp_path / name)


def changed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("raw.nrrd", lambda content: b"no image", "expected a .nrrd file|header"),
        ("raw.nrrd", changed(b"kinds:", b'space units: "um" "um" "um"\nkinds:'), "its unit is .*um.*expected mm"),
        ("raw.mha", changed(b"ElementSpacing = 0.8", b"ElementSpacing = 0.00001"), "voxels measure 1e-05"),
        ("raw.mha", changed(b"ElementDataFile = LOCAL", b"ElementDataFile = other.raw"), "header|same file|read"),
        (
            "raw.mha",
            changed(b"DimSize = 6 5 4", b"DimSize = 30000 30000 30000"),
            "30000 x 30000 x 30000 voxels takes",
        ),
    ],
)
def test_impossible_files_are_refused_by_name(
    folder: Path, tmp_path: Path, name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    content = change((folder / name).read_bytes())
    assert content != (folder / name).read_bytes()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        load_nifti(tmp_path / name)
    assert name in str(raised.value)


def test_header_that_does_not_say_how_its_axes_lie_is_told(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (folder / "raw.nrrd").read_bytes()
    (tmp_path / "a.nrrd").write_bytes(content.replace(b"space: left-posterior-superior\n", b"space dimension: 3\n"))
    load_nifti(tmp_path / "a.nrrd")
    assert "a.nrrd: its header does not say how its axes lie" in caplog.text


def test_without_itk_it_is_said_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itk", None)
    with pytest.raises(UnusableFile, match=r"a\.nrrd: to read \.nrrd files, install the package itk \(pip install itk"):
        load_nifti(folder / "a.nrrd")
    assert load_nifti(folder / "a.mgz").shape == (6, 5, 4)


def test_folder_and_file_are_inputs_of_inference(folder: Path, tmp_path: Path) -> None:
    for name, new in (("a.nrrd", "p1.nrrd"), ("a.nrrd", "p1.seg.nrrd"), ("a.mha", "p2.mha"), ("a.mgz", "p3.mgz")):
        (tmp_path / new).write_bytes((folder / name).read_bytes())
    items: list[dict[str, Any]] = inference_items(tmp_path)
    assert [item["case"] for item in items] == ["p1", "p2", "p3"]  # p1.seg.nrrd lies beside its image: a mask
    assert inference_items(tmp_path / "p2.mha")[0]["case"] == "p2"
