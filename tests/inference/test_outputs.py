"""Masks lie on their images in every reader, and replace nobody's file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from scripts.data.loading import load_volume
from scripts.inference.outputs import SafeSaveImaged, mask_key, missing_masks, require_own_file
from scripts.words.table import ConceptTable

SFORM = np.array([[-0.7042, 0.1, 0, 90], [0.1, 0.7042, 0, -120], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
QFORM = np.diag([0.71, -0.71, 2.5, 1.0])
VOXELS = np.random.default_rng(0).integers(0, 200, size=(6, 5, 4)).astype(np.int16)
PLACE = ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x")


@pytest.fixture
def save_image(tmp_path: Path) -> Callable[..., str]:
    def save(sform: int = 1, qform: int = 0, unit: str = "micron", kind: Any = nib.Nifti1Image) -> str:
        image = kind(VOXELS, None)
        scale = 1e3 if unit == "micron" else 1.0
        image.header.set_qform(np.diag([scale] * 3 + [1.0]) @ QFORM, code=qform)
        image.header.set_sform(np.diag([scale] * 3 + [1.0]) @ SFORM, code=sform)
        image.header.set_xyzt_units(unit, "sec")
        nib.save(image, tmp_path / "case.nii.gz")
        return str(tmp_path / "case.nii.gz")

    return save


def mask_of(path: str) -> MetaTensor:
    volume = load_volume(path)
    return MetaTensor((volume > 100).to(torch.uint8), meta=volume.meta)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 4), (0, 0)])
@pytest.mark.parametrize("unit", ["mm", "micron", "unknown"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_mask_has_the_transforms_codes_and_unit_of_its_image(
    save_image: Callable[..., str], tmp_path: Path, codes: tuple[int, int], unit: str, kind: Any
) -> None:
    path = save_image(*codes, unit, kind)
    SafeSaveImaged("pred", tmp_path / "out")({"pred": mask_of(path)})
    image, mask = nib.load(path), nib.load(tmp_path / "out/case_seg.nii.gz")
    assert type(mask) is type(image)
    for name in PLACE:
        assert np.array_equal(mask.header[name], image.header[name]), name
    assert np.array_equal(mask.header["pixdim"][:4], image.header["pixdim"][:4])
    assert mask.header.get_xyzt_units()[0] == unit
    assert np.array_equal(mask.affine, image.affine)
    assert np.array_equal(np.asarray(mask.dataobj), VOXELS > 100)
    assert mask.get_data_dtype() == np.uint8


def test_itk_puts_both_at_one_place(save_image: Callable[..., str], tmp_path: Path) -> None:
    itk = pytest.importorskip("itk")
    path = save_image(1, 1, "mm")
    SafeSaveImaged("pred", tmp_path / "out")({"pred": mask_of(path)})
    image, mask = itk.imread(path), itk.imread(str(tmp_path / "out/case_seg.nii.gz"))
    for corner in ((0, 0, 0), (5, 4, 3)):
        places = [list(volume.TransformIndexToPhysicalPoint(corner)) for volume in (mask, image)]
        assert places[0] == places[1]


def test_a_mask_in_another_grid_than_its_file_keeps_its_own(save_image: Callable[..., str], tmp_path: Path) -> None:
    turned = Orientation("RAS", labels=None)(mask_of(save_image(1, 1, "mm")))
    SafeSaveImaged("pred", tmp_path / "out")({"pred": turned})
    mask = nib.load(tmp_path / "out/case_seg.nii.gz")
    assert np.allclose(mask.affine, turned.affine, atol=1e-4)
    assert mask.header.get_xyzt_units()[0] == "mm"


def test_regions_are_channels_at_the_end(save_image: Callable[..., str], tmp_path: Path) -> None:
    mask = mask_of(save_image())
    SafeSaveImaged("pred", tmp_path / "out")({"pred": MetaTensor(torch.cat([mask, 1 - mask]), meta=mask.meta)})
    assert nib.load(tmp_path / "out/case_seg.nii.gz").shape == (6, 5, 4, 2)


class TestOwnFiles:
    def test_a_file_of_the_users_is_not_replaced(self, save_image: Callable[..., str], tmp_path: Path) -> None:
        path, theirs = save_image(), tmp_path / "case_seg.nii.gz"
        for content in (Path(path).read_bytes(), b"no image at all"):
            theirs.write_bytes(content)
            with pytest.raises(FileExistsError, match=r"case_seg\.nii\.gz' is there, .*predictions_dir"):
                SafeSaveImaged("pred", tmp_path)({"pred": mask_of(path)})
            with pytest.raises(FileExistsError, match="is not replaced"):
                missing_masks([{"image": path, "case": "case"}], tmp_path, "key", overwrite=True)
            assert theirs.read_bytes() == content

    def test_a_mask_of_ones_own_is(self, save_image: Callable[..., str], tmp_path: Path) -> None:
        for _ in range(2):
            SafeSaveImaged("pred", tmp_path / "out")({"pred": mask_of(save_image())})
        require_own_file(tmp_path / "out/case_seg.nii.gz")

    def test_a_full_disk_leaves_no_half_file(
        self, save_image: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fill(image: Any, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        mask = mask_of(save_image())
        monkeypatch.setattr(nib, "save", fill)
        with pytest.raises(OSError, match=r"Cannot write '.*case_seg\.nii\.gz': No space left"):
            SafeSaveImaged("pred", tmp_path / "out")({"pred": mask})
        assert not list((tmp_path / "out").iterdir())


class TestMissingMasks:
    def test_nothing_is_made_twice(self, save_image: Callable[..., str], tmp_path: Path) -> None:
        items = [{"image": save_image(), "case": "case"}]
        find = lambda key, **options: missing_masks(items, tmp_path / "out", key, **options)  # noqa: E731
        assert find("a") == items
        SafeSaveImaged("pred", tmp_path / "out", mask_key="a")({"pred": mask_of(items[0]["image"])})
        assert find("a") == []
        assert find("b") == items, "another model, other words"
        assert find("a", overwrite=True) == items
        os.utime(items[0]["image"], ns=(1, 1))
        assert find("a") == items, "another image"

    def test_the_key_is_of_model_words_and_settings(self, table: ConceptTable, tmp_path: Path) -> None:
        keys = []
        for content in (b"one", b"two"):
            (tmp_path / "model.pt").write_bytes(content)
            keys += [mask_key(tmp_path / "model.pt", table, {"spacing": spacing}) for spacing in (1, 2)]
        other = ConceptTable(table.modality, table.concepts, table.classes[::-1], table.sentences[::-1])
        keys.append(mask_key(tmp_path / "model.pt", other, {"spacing": 2}))
        assert len(set(keys)) == 5
        assert keys[3] == mask_key(tmp_path / "model.pt", table, {"spacing": 2})
