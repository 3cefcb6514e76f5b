"""Which of a header's transforms counts, and which files are refused."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.data import memory
from scripts.data.loading import SafeLoadImaged, load_volume
from scripts.data.nifti import UnusableFile, load_nifti, load_ras, read_header

SFORM = np.array([[-0.7042, 0.1, 0, 90], [0.1, 0.7042, 0, -120], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
QFORM = np.diag([0.71, 0.71, 2.5, 1.0])
VOXELS = np.random.default_rng(0).integers(-1000, 1000, size=(6, 5, 4)).astype(np.int16)

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(
        sform: int = 1,
        qform: int = 1,
        name: str = "odd.nii.gz",
        edit: Callable[[Any], None] | None = None,
        kind: Any = nib.Nifti1Image,
    ) -> Path:
        """A file whose transforms differ, with those codes; `edit` changes the bytes of its header."""
        image = kind(VOXELS, None)
        image.header.set_qform(QFORM, code=qform)
        image.header.set_sform(SFORM, code=sform)
        content = bytearray(image.to_bytes())
        if edit is not None:
            header = type(image.header)(bytes(content[: image.header.sizeof_hdr]), check=False)
            edit(header)
            content[: image.header.sizeof_hdr] = header.binaryblock
        path = tmp_path / name
        path.write_bytes(gzip.compress(bytes(content)) if name.endswith(".gz") else bytes(content))
        return path

    return write


def setting(**fields: Any) -> Callable[[Any], None]:
    def edit(header: Any) -> None:
        for name, value in fields.items():
            header[name] = value

    return edit


@pytest.mark.parametrize(("unit", "scale"), [(2, 1.0), (1, 1e3), (3, 1e-3)])
def test_image_in_ras_has_the_transform_in_millimetres(make: Make, unit: int, scale: float) -> None:
    """The sform says that the first axis runs to the left; nibabel's own affine is in the unit of the header."""

    def in_unit(header: Any) -> None:
        header.set_xyzt_units(unit)
        for set_form, form in ((header.set_qform, QFORM), (header.set_sform, SFORM)):
            set_form(np.diag([1 / scale, 1 / scale, 1 / scale, 1]) @ form, code=1)

    found = load_ras(make(edit=in_unit))
    flip = np.array([[-1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(found.affine, SFORM @ flip, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.header.get_zooms(), np.linalg.norm(SFORM[:3, :3], axis=0), rtol=1e-5)
    assert np.array_equal(found.dataobj, VOXELS[::-1])


class TestTransform:
    @pytest.mark.parametrize(("sform", "qform", "counts"), [(1, 0, SFORM), (0, 1, QFORM), (1, 1, SFORM), (2, 4, SFORM)])
    @pytest.mark.parametrize("name", ["odd.nii.gz", "odd.nii"])
    def test_the_coded_one_counts(self, make: Make, sform: int, qform: int, counts: Any, name: str) -> None:
        loaded = load_volume(make(sform, qform, name))
        assert np.allclose(loaded.affine, counts, atol=1e-5)
        assert torch.equal(loaded[0].as_tensor(), torch.from_numpy(VOXELS).float())

    def test_without_codes_the_voxel_sizes_count_as_in_nibabel(self, make: Make) -> None:
        path = make(0, 0)
        assert np.allclose(load_volume(path).affine, nib.load(path).affine)

    @pytest.mark.parametrize("slip", [1e-5, 1e-4, 0.004])
    def test_a_spacing_that_disagrees_slightly_changes_no_transform(self, make: Make, slip: float) -> None:
        path = make(1, 0, edit=lambda header: header["pixdim"].__setitem__(1, header["pixdim"][1] + slip))
        assert np.allclose(load_volume(path).affine, SFORM, atol=1e-5)

    @pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1e3), (2, 1), (3, 1e-3)])
    def test_the_unit_is_heeded(self, make: Make, unit: int, factor: float) -> None:
        def edit(header: Any) -> None:
            header["xyzt_units"] = unit
            for row in ("srow_x", "srow_y", "srow_z"):
                header[row] = header[row] / factor
            header["pixdim"][1:4] /= factor

        assert np.allclose(load_volume(make(edit=edit)).affine, SFORM, rtol=1e-5, atol=1e-4)

    def test_nifti_2_and_big_endian(self, make: Make, tmp_path: Path) -> None:
        assert np.allclose(load_volume(make(kind=nib.Nifti2Image)).affine, SFORM)
        image = nib.Nifti1Image(VOXELS.astype(">i2"), SFORM, nib.Nifti1Header(endianness=">"))
        nib.save(image, tmp_path / "big.nii.gz")
        loaded = load_volume(tmp_path / "big.nii.gz")
        assert np.allclose(loaded.affine, SFORM)
        assert torch.equal(loaded[0].as_tensor(), torch.from_numpy(VOXELS).float())

    @pytest.mark.parametrize(
        ("sform", "qform", "edit", "line"),
        [
            (1, 1, None, r"sform and qform put a corner 1\d\d mm apart; the sform counts"),
            (0, 0, None, "neither sform nor qform is coded"),
            (
                1,
                0,
                lambda h: h["pixdim"].__setitem__(3, 5.0),
                r"pixdim says .* x 5 mm, its sform .* x 2.5 mm",
            ),
            (1, 1, setting(quatern_b=2.0), "its qform is no rotation; the sform counts"),
        ],
    )
    def test_a_header_that_contradicts_itself_is_named(
        self, make: Make, caplog: pytest.LogCaptureFixture, sform: int, qform: int, edit: Any, line: str
    ) -> None:
        path = make(sform, qform, edit=edit)
        load_nifti(path)
        (record,) = caplog.records
        assert str(path) in record.getMessage()
        assert re.search(line, record.getMessage())

    def test_sound_headers_are_not_talked_about(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        load_nifti(make(1, 0))
        assert not caplog.records


class TestRefusals:
    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (setting(srow_x=(1e30, 0, 0, 0)), r"measure 1e\+30 x .* by sform .*expected edges from 0.001 to 100 mm"),
            (setting(srow_x=(np.nan, 0, 0, 0)), "its voxels measure nan"),
            (setting(srow_y=(-0.7042, 0.1, 0, 0)), "two axes of its sform"),
            (setting(srow_x=(-0.7, 0.1, 0, 1e30)), r"sform puts it 1e\+30 mm from the origin"),
            (setting(sform_code=77), "its sform_code is 77; expected 0 to 5"),
            (setting(xyzt_units=5), "no known unit of length"),
            (setting(xyzt_units=1), r"measure 711.3 x 711.3 x 2500 mm by sform \(unit: meter\)"),
            (setting(sform_code=0, pixdim=(1, 0, 1, 1, 1, 1, 1, 1)), r"measure 0 x 1 x 1 \(pixdim\)"),
            (setting(dim=(3, 6, -5, 4, 1, 1, 1, 1)), r"cannot be read|has the size"),
            (setting(dim=(3, 6, 5, 400, 1, 1, 1, 1)), "it is cut off"),
            (setting(datatype=128, bitpix=24), "expected one number a voxel"),
            (setting(datatype=999), "cannot be read"),
            (setting(vox_offset=0), r"begin at byte 0 \(vox_offset\)"),
            (setting(scl_slope=np.inf), "scaled by infinity"),
            (setting(magic=b"ni1"), "the header of a pair"),
            (setting(magic=b"abc"), "found none by its first bytes"),
        ],
    )
    @pytest.mark.parametrize("name", ["odd.nii.gz", "odd.nii"])
    def test_an_impossible_header_is_refused_by_name(self, make: Make, edit: Any, message: str, name: str) -> None:
        path = make(edit=edit, name=name)
        with pytest.raises(UnusableFile, match=message) as refusal:
            load_volume(path)
        assert str(path) in str(refusal.value)

    def test_every_flipped_bit_of_a_compressed_file_is_found(self, make: Make) -> None:
        path = make()
        sound, rng = path.read_bytes(), np.random.default_rng(0)
        expected = load_nifti(path)
        for place in rng.integers(12 * 8, 8 * len(sound), size=200):  # beyond gzip's own name and time
            damaged = bytearray(sound)
            damaged[place // 8] ^= 1 << place % 8
            path.write_bytes(damaged)
            with pytest.raises(UnusableFile, match=str(path)):
                load_nifti(path)
        assert np.array_equal(np.asarray(expected.dataobj), VOXELS)

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
    @pytest.mark.parametrize("name", ["odd.nii.gz", "odd.nii"])
    def test_a_truncated_file_is_named(self, make: Make, share: float, name: str) -> None:
        path = make(name=name)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UnusableFile, match=str(path)):
            load_volume(path)
        with pytest.raises(UnusableFile, match=str(path)) if share < 0.9 else nullcontext():
            read_header(path)

    def test_a_bomb_ends_early(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make()
        with gzip.open(path, "ab") as more:
            for _ in range(70):
                more.write(bytes(2**20))
        with pytest.raises(UnusableFile, match="holds far more than its header says"):
            load_nifti(path)
        monkeypatch.setattr(memory, "machine_memory", lambda: 10**9)
        path = make(edit=setting(dim=(3, 3000, 3000, 3000, 1, 1, 1, 1)))
        with pytest.raises(ValueError, match=r"3000 x 3000 x 3000 voxels takes 162 GB; this machine has 1 GB"):
            load_nifti(path)

    def test_channels_that_do_not_fit_are_named(self, make: Make, tmp_path: Path) -> None:
        paths = [str(make(1, 0, "a_0000.nii.gz")), str(make(0, 1, "a_0001.nii.gz"))]
        with pytest.raises(UnusableFile, match=r"a_0000.nii.gz, .*a_0001.nii.gz: cannot be read"):
            SafeLoadImaged("image", ensure_channel_first=True)({"image": paths})

    def test_an_absent_file_is_absent(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="absent"):
            load_volume(tmp_path / "absent.nii.gz")
