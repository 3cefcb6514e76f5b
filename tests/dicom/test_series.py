"""Reading a folder: the volume in its place, and an error with a name for all that is no volume."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import scripts.dicom.series
from scripts.dicom.series import read_series

highdicom = pytest.importorskip("highdicom", reason="DICOM is optional: pip install pydicom highdicom")
pydicom = pytest.importorskip("pydicom", reason="DICOM is optional: pip install pydicom highdicom")

Export = Callable[..., Path]


class TestVolume:
    def test_voxel_lies_where_the_standard_puts_it(self, scan: Any, export: Export) -> None:
        """C.7.6.2.1.1: position + column index x row direction x spacing + row index x column direction x spacing."""
        series = read_series(export(scan.slices()))
        row, column = np.array(scan.orientation).reshape(2, 3)
        for c, r, s in ((0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 0, 5), (2, 1, 4)):
            lps = np.array(scan.position(s)) + c * scan.spacing[1] * row + r * scan.spacing[0] * column
            np.testing.assert_allclose((series.affine @ [c, r, s, 1])[:3], lps * [-1, -1, 1], atol=1e-4)
            assert series.image[c, r, s] == scan.stored[s, r, c] - 1024

    def test_axial_slices_by_hand(self, axial: Any, export: Export) -> None:
        series = read_series(export(axial(np.zeros((3, 5, 4))).slices()))
        expected = [[-2.0, 0, 0, 30.0], [0, -1.5, 0, -12.5], [0, 0, 2.5, 400.0], [0, 0, 0, 1]]
        np.testing.assert_allclose(series.affine, expected)
        assert series.image.shape == (4, 5, 3)
        assert series.image.dtype == np.float32
        assert series.modality == "CT"

    def test_highdicom_reads_the_same_volume(self, scan: Any, export: Export) -> None:
        series = read_series(export(scan.slices()))
        volume = highdicom.get_volume_from_series(scan.slices())
        volume = volume.flip_spatial(0).permute_spatial_axes([2, 1, 0])  # it stacks along the other normal
        np.testing.assert_array_equal(series.image, volume.array)
        np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ series.affine, volume.affine, atol=1e-4)

    @pytest.mark.parametrize("seed", [None, 0, 1])
    def test_order_and_names_of_the_files_do_not_matter(self, scan: Any, export: Export, seed: int | None) -> None:
        datasets = scan.slices()
        straight = read_series(export(datasets, "straight"))
        order = list(range(6))[::-1] if seed is None else np.random.default_rng(seed).permutation(6).tolist()
        mixed = read_series(export([datasets[index] for index in order], "mixed"))
        np.testing.assert_array_equal(mixed.image, straight.image)
        np.testing.assert_allclose(mixed.affine, straight.affine)
        assert [d.InstanceNumber for d in mixed.datasets] == [1, 2, 3, 4, 5, 6]

    def test_each_slice_has_its_own_slope(self, scan: Any, export: Export) -> None:
        datasets = scan.slices()
        datasets[2].RescaleSlope, datasets[2].RescaleIntercept = 0.5, 7
        image = read_series(export(datasets)).image
        np.testing.assert_array_equal(image[:, :, 2], scan.stored[2].T * 0.5 + 7)
        np.testing.assert_array_equal(image[:, :, 3], scan.stored[3].T - 1024)

    def test_what_is_for_display_changes_no_value(self, scan: Any, export: Export) -> None:
        datasets = scan.slices()
        plain = read_series(export(datasets, "plain")).image
        for dataset in datasets:
            dataset.PhotometricInterpretation = "MONOCHROME1"
            dataset.WindowCenter, dataset.WindowWidth = 40, 400
        np.testing.assert_array_equal(read_series(export(datasets, "inverted")).image, plain)

    def test_ct_not_in_hu_is_reported(self, scan: Any, export: Export, caplog: pytest.LogCaptureFixture) -> None:
        read_series(export(scan.slices(), "hu"))
        assert not caplog.messages
        datasets = scan.slices()
        for dataset in datasets:
            del dataset.RescaleIntercept, dataset.RescaleSlope
        read_series(export(datasets, "stored"))
        assert "'Abdomen'" in caplog.text
        assert "lack its rescale intercept" in caplog.text

    def test_nifti_has_the_geometry_and_the_values(self, scan: Any, export: Export, tmp_path: Path) -> None:
        series = read_series(export(scan.slices()))
        series.save(tmp_path / "out.nii.gz")
        nifti = nib.load(tmp_path / "out.nii.gz")
        np.testing.assert_allclose(nifti.affine, series.affine, atol=1e-4)
        np.testing.assert_array_equal(nifti.get_fdata(), series.image)
        assert nifti.header.get_xyzt_units()[0] == "mm"

    @pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 5, 1, 4, 3]])
    def test_enhanced_multi_frame_image_is_the_same_volume(self, scan: Any, export: Export, order: list[int]) -> None:
        single = read_series(export(scan.slices(), "single"))
        multi = read_series(export([scan.multi_frame(order)], "multi"))
        np.testing.assert_array_equal(multi.image, single.image)
        np.testing.assert_allclose(multi.affine, single.affine, atol=1e-6)
        np.testing.assert_array_equal(multi.to_frames(multi.image), (scan.stored - 1024.0)[order])

    def test_compressed_slices(self, scan: Any, export: Export) -> None:
        datasets = scan.slices()
        plain = read_series(export(datasets, "plain")).image
        for dataset in datasets:
            dataset.compress(pydicom.uid.RLELossless)
        np.testing.assert_array_equal(read_series(export(datasets, "compressed")).image, plain)

    def test_frames_of_another_grid_do_not_fit(self, scan: Any, export: Export) -> None:
        series = read_series(export(scan.slices()))
        with pytest.raises(ValueError, match=r"'Abdomen'.*has the shape \(4, 5, 6\); a volume of \(5, 4, 6\)"):
            series.to_frames(np.zeros((5, 4, 6)))


class TestOtherFiles:
    def test_are_skipped_with_a_word(self, scan: Any, export: Export, caplog: pytest.LogCaptureFixture) -> None:
        folder = export(scan.slices())
        (folder / "report.pdf").write_bytes(b"%PDF-1.4 nothing")
        (folder / "empty").write_bytes(b"")
        (folder / ".hidden").write_bytes(b"x")
        (folder / "deeper").mkdir()
        directory = scan.common(pydicom.uid.MediaStorageDirectoryStorage)
        document = scan.common(pydicom.uid.EncapsulatedPDFStorage)
        for dataset in (directory, document):
            del dataset.Rows, dataset.Columns
        directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
        document.save_as(folder / "IM9999", enforce_file_format=True)
        segmentation = scan.slice(0)
        segmentation.Modality, segmentation.SeriesInstanceUID = "SEG", pydicom.uid.generate_uid()
        segmentation.SOPClassUID = pydicom.uid.SegmentationStorage
        segmentation.save_as(folder / "old_seg", enforce_file_format=True)
        assert read_series(folder).image.shape == (4, 5, 6)
        told = caplog.messages[-1]
        assert "report.pdf (not DICOM)" in told
        assert "empty (not DICOM)" in told
        assert "DICOMDIR (Media Storage Directory Storage)" in told
        assert "IM9999 (Encapsulated PDF Storage)" in told
        assert "old_seg (Segmentation Storage)" in told
        assert ".hidden" not in told

    def test_alone_are_no_series(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no image")
        with pytest.raises(FileNotFoundError, match=r"no DICOM image in .*holds 1 other file.*subfolders are not read"):
            read_series(tmp_path)

    def test_absent_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no folder '.*nowhere'; expected one with the files"):
            read_series(tmp_path / "nowhere")

    @pytest.mark.parametrize("content", [b"", b"no dicom at all"])
    def test_damaged_dicom_file_is_not_skipped(self, scan: Any, export: Export, content: bytes) -> None:
        folder = export(scan.slices())
        (folder / "IM0006.dcm").write_bytes(content)
        with pytest.raises(ValueError, match=r"IM0006\.dcm' is damaged or no DICOM file"):
            read_series(folder)


class TestSeveralSeries:
    @pytest.fixture
    def two(self, scan: Any, axial: Any, export: Export) -> tuple[Path, Any]:
        other = axial(np.zeros((2, 5, 4)))
        localizers = other.slices()
        for dataset in localizers:
            dataset.SeriesNumber, dataset.SeriesDescription = 1, "Localizer"
        export(localizers)
        return export(scan.slices(), first=2), other

    def test_are_named(self, two: tuple[Path, Any], scan: Any) -> None:
        message = r"holds 2 series, expected one: series 1 'Localizer' .*2 file\(s\), IM0000.*series 3 'Abdomen' "
        with pytest.raises(ValueError, match=message) as error:
            read_series(two[0])
        assert scan.series_uid in str(error.value)
        assert "series_uid" in str(error.value)

    def test_one_is_taken_by_its_uid(self, two: tuple[Path, Any], scan: Any) -> None:
        assert read_series(two[0], scan.series_uid).image.shape == (4, 5, 6)
        assert read_series(two[0], two[1].series_uid).image.shape == (4, 5, 2)

    def test_unknown_uid(self, two: tuple[Path, Any]) -> None:
        with pytest.raises(ValueError, match=r"has no series 1\.2\.3; found series 1 'Localizer'"):
            read_series(two[0], "1.2.3")


def change(index: int, **values: Any) -> Callable[[list[Any]], list[Any]]:
    """A fault: attributes of one slice, None to take one away."""

    def apply(datasets: list[Any]) -> list[Any]:
        for keyword, value in values.items():
            if value is None:
                delattr(datasets[index], keyword)
            else:
                setattr(datasets[index], keyword, value)
        return datasets

    return apply


WITHIN = "IM0004 \\(instance 5\\)"


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            (
                lambda d: d[:2] + d[3:],
                r"'Abdomen'.* lacks 1 slice\(s\) between IM0001 \(instance 2\) and IM0002 \(instance 4\): .* 5\.00 mm",
            ),
            (lambda d: [d[0], *d[4:]], r"lacks 3 slice\(s\) between IM0000 \(instance 1\) and IM0001 \(instance 5\)"),
            (lambda d: [*d, d[3]], r"two slices in one place: IM0003 \(instance 4\) and IM0006 \(instance 4\)"),
            (lambda d: d[:1], r"'Abdomen'.*has a single slice, IM0000 \(instance 1\)"),
            (
                change(4, ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
                rf"different orientation: 5 have \[0.9.*\], but {WITHIN} has \[1.0, 0.0",
            ),
            (
                change(4, ImageOrientationPatient=[2, 0, 0, 0, 1, 0]),
                rf"{WITHIN} has directions that are no right angle of unit vectors",
            ),
            (change(4, PixelSpacing=[1.5, 2.1]), rf"pixel spacing: 5 have 1.5 x 2 mm, but {WITHIN} has 1.5 x 2.1 mm"),
            (
                change(4, Rows=4, PixelData=bytes(32)),
                rf"size: 5 have 5 x 4 rows and columns, but {WITHIN} has 4 x 4 rows",
            ),
            (change(4, FrameOfReferenceUID="1.2.3"), rf"different frame of reference: .*{WITHIN} has 1\.2\.3"),
            (change(4, ImagePositionPatient=None), rf"{WITHIN} has no ImagePositionPatient"),
            (change(4, PixelSpacing=None), rf"{WITHIN} has no PixelSpacing"),
            (change(4, FrameOfReferenceUID=None), rf"{WITHIN} has no FrameOfReferenceUID"),
            (change(4, SeriesInstanceUID=None), r"IM0004 has no SeriesInstanceUID"),
            (
                change(4, ImagePositionPatient=[1, 2]),
                rf"{WITHIN} has ImagePositionPatient \[1\.0, 2\.0\]; expected 3 numbers",
            ),
            (change(4, SamplesPerPixel=3), rf"{WITHIN} is a colour image"),
            (change(4, NumberOfFrames=2), rf"{WITHIN} has 2 frames and tells the place of 0"),
            (change(4, PixelData=None), r"pixels of IM0004 cannot be decoded"),
            (change(4, PixelData=bytes(20)), r"pixels of IM0004 cannot be decoded"),
        ],
    )
    def test_is_named(self, scan: Any, export: Export, fault: Callable[..., list[Any]], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            read_series(export(fault(scan.slices())))

    def test_uneven_steps(self, scan: Any, export: Export) -> None:
        datasets = scan.slices()
        datasets[3].ImagePositionPatient = scan.position(3.2)
        with pytest.raises(ValueError, match=r"from 2\.00 to 3\.00 mm, and IM0003 \(instance 4\) lies 0\.50 mm from"):
            read_series(export(datasets))

    def test_rounded_positions_are_even_enough(self, scan: Any, export: Export) -> None:
        datasets = scan.slices()
        for dataset in datasets:
            dataset.ImagePositionPatient = [round(float(value), 1) for value in dataset.ImagePositionPatient]
        assert read_series(export(datasets)).image.shape == (4, 5, 6)

    @pytest.mark.parametrize("degrees", [2.0, 15.0])
    def test_tilted_gantry(self, axial: Any, export: Export, degrees: float) -> None:
        datasets = axial(np.zeros((6, 5, 4))).slices()
        for index, dataset in enumerate(datasets):
            dataset.ImagePositionPatient[1] += index * 2.5 * np.tan(np.radians(degrees))
        message = rf"no upright stack: IM0005 \(instance 6\) is shifted by .*{degrees:.1f} degrees, the gantry's tilt"
        with pytest.raises(ValueError, match=message):
            read_series(export(datasets))

    def test_several_multi_frame_files(self, scan: Any, export: Export) -> None:
        files = [scan.multi_frame([0, 1, 2]), scan.multi_frame([3, 4, 5])]
        with pytest.raises(ValueError, match=r"split over 2 multi-frame files; expected one"):
            read_series(export(files))

    def test_frame_is_named_in_a_multi_frame_file(self, scan: Any, export: Export) -> None:
        with pytest.raises(ValueError, match=r"lacks 1 slice\(s\) between frame 2 of IM0000 and frame 3 of IM0000"):
            read_series(export([scan.multi_frame([0, 1, 3, 4])]))
        with pytest.raises(ValueError, match=r"in one place: frame 2 of IM0000 and frame 3 of IM0000"):
            read_series(export([scan.multi_frame([0, 1, 1, 2])]))

    def test_transfer_syntax_without_a_decoder(self, scan: Any, export: Export) -> None:
        datasets = scan.slices()
        for dataset in datasets:
            dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f" + bytes(30)])
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
        message = r"'Abdomen'.*pixels of IM0000 cannot be decoded \(transfer syntax High-Throughput.*pylibjpeg"
        with pytest.raises(ValueError, match=message):
            read_series(export(datasets))


def test_everything_imports_without_the_libraries(bundle_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what to install once it is asked to do something."""
    for name in [n for n in sys.modules if n.split(".")[0] in ("pydicom", "highdicom")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("pydicom", "highdicom"):
        monkeypatch.setitem(sys.modules, name, None)  # to be looked up and not found
    for name in ("geometry", "series", "segmentation", "segment"):
        file = bundle_root / f"scripts/dicom/{name}.py"
        spec = importlib.util.spec_from_file_location(f"scripts.dicom.{name}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, f"scripts.dicom.{name}", module)
        spec.loader.exec_module(module)
    with pytest.raises(ImportError, match=r"needs pydicom and highdicom: not installed here"):
        module.segment_dicom("nowhere", "out")


def test_absent_libraries_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scripts.dicom.series, "_has_highdicom", False)
    with pytest.raises(ImportError, match=r"DICOM needs highdicom: .* `pip install pydicom highdicom`"):
        read_series(tmp_path)


def test_folder_may_be_moved_while_in_use(scan: Any, export: Export) -> None:
    """Nothing is read later: a series outlives its folder."""
    folder = export(scan.slices())
    series = read_series(folder)
    shutil.rmtree(folder)
    assert len(series.datasets[0].PixelData) == 5 * 4 * 2


UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


class TestAnonymised:
    def test_uids_that_no_file_has_are_invented(self, scan: Any, export: Export) -> None:
        datasets = scan.slices()
        for dataset in datasets:
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            for keyword in UIDS:
                delattr(dataset, keyword)
        found, known = read_series(export(datasets, "none")), read_series(export(scan.slices(), "all"))
        np.testing.assert_array_equal(found.image, known.image)
        np.testing.assert_array_equal(found.affine, known.affine)
        assert (found.invented, known.invented) == (UIDS, ())
        assert len({dataset.SOPInstanceUID for dataset in found.datasets}) == len(datasets)

    def test_uids_that_some_files_lack_are_not(self, scan: Any, export: Export) -> None:
        with pytest.raises(ValueError, match=r"IM0002 has no StudyInstanceUID"):
            read_series(export(change(2, StudyInstanceUID=None)(scan.slices())))


class TestAcquisitions:
    @pytest.fixture
    def phases(self, scan: Any) -> list[Any]:
        """Two phases in one series, the second half a step away: evenly spaced, and no volume."""
        datasets = [*scan.slices(), *scan.slices()]
        for number, dataset in enumerate(datasets):
            late = number >= len(datasets) // 2
            dataset.AcquisitionNumber = 1 + late
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
            if late:
                dataset.ImagePositionPatient = scan.position(number - len(datasets) // 2 + 0.5)
        return datasets

    def test_two_in_one_series_are_refused_with_what_differs(self, phases: list[Any], export: Export) -> None:
        message = r"several acquisitions.* AcquisitionNumber \(1: 6 slices, 2: 6 slices\).*'AcquisitionNumber=1'"
        with pytest.raises(ValueError, match=message):
            read_series(export(phases))

    @pytest.mark.parametrize("number", [1, 2])
    def test_one_is_taken_by_option(self, phases: list[Any], export: Export, scan: Any, number: int) -> None:
        series = read_series(export(phases), acquisition=f"AcquisitionNumber={number}")
        assert {dataset.AcquisitionNumber for dataset in series.datasets} == {number}
        np.testing.assert_array_equal(series.image[:, :, 3], scan.stored[3].T - 1024)

    def test_one_that_is_not_there_is_refused(self, phases: list[Any], export: Export) -> None:
        with pytest.raises(ValueError, match=r"no slice with AcquisitionNumber=3; found AcquisitionNumber 1: 6"):
            read_series(export(phases), acquisition="AcquisitionNumber=3")

    def test_parts_one_behind_the_other_are_one_volume(self, scan: Any, export: Export) -> None:
        datasets = scan.slices()
        for number, dataset in enumerate(datasets):
            dataset.AcquisitionNumber, dataset.AcquisitionTime = 1 + number // 3, f"12000{number}"
        assert read_series(export(datasets)).image.shape[2] == 6
