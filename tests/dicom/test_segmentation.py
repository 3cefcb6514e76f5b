"""SEG files, read back by highdicom: the same voxels in the same place, under the right names."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.dicom.segmentation import make_segmentation
from scripts.dicom.series import Series, read_series
from scripts.words.codes import ClassCode
from scripts.words.table import ConceptTable

highdicom = pytest.importorskip("highdicom", reason="DICOM is optional: pip install pydicom highdicom")
codes = pytest.importorskip("pydicom.sr.codedict", reason="DICOM is optional: pip install pydicom highdicom").codes

Export = Callable[..., Path]

NAMES = ("right kidney", "Odd thing", "tumor")
CODES = (
    ClassCode("SCT", "64033007", "Kidney", modifier="right"),
    None,
    ClassCode("SCT", "108369006", "Neoplasm", abnormal=True),
)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(params=["single", "reversed", "multi", "multi_mixed"])
def series(request: pytest.FixtureRequest, scan: Any, export: Export) -> Series:
    datasets = {
        "single": scan.slices(),
        "reversed": scan.slices()[::-1],
        "multi": [scan.multi_frame([0, 1, 2, 3, 4, 5])],
        "multi_mixed": [scan.multi_frame([4, 0, 5, 1, 3, 2])],
    }
    return read_series(export(datasets[request.param]))


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    """Columns x rows x slices, without any symmetry; classes 1 and 3, on slices 1 to 4."""
    volume = np.zeros((4, 5, 6), dtype=np.uint8)
    volume[0:2, 1:4, 1:3] = 1
    volume[2:, 0, 2:5] = 3
    volume[1, 4, 4] = 3
    return volume


def read_back(path: Path) -> tuple[Any, dict[tuple[float, ...], set[int]]]:
    """Which segments are set at which place, in mm, RAS, rounded to 0.01."""
    file = highdicom.seg.segread(path)
    volume = file.get_volume()  # slices x rows x columns x segments
    places: dict[tuple[float, ...], set[int]] = {}
    for *index, segment in np.argwhere(volume.array):
        place = LPS_TO_RAS @ volume.affine @ [*index, 1]
        places.setdefault(tuple(np.round(place[:3], 2) + 0.0), set()).add(int(segment) + 1)
    return file, places


def expected_places(series: Series, labels: NDArray[Any]) -> dict[tuple[float, ...], set[int]]:
    """The same of a volume on the series' grid."""
    places = {}
    for index in product(*map(range, labels.shape[:3])):
        found = {int(labels[index])} - {0} if labels.ndim == 3 else set((np.flatnonzero(labels[index]) + 1).tolist())
        if found:
            places[tuple(np.round((series.affine @ [*index, 1])[:3], 2) + 0.0)] = found
    return places


class TestVoxels:
    def test_lie_where_those_of_the_nifti_lie(self, series: Series, labels: NDArray[Any], tmp_path: Path) -> None:
        make_segmentation(series, labels, NAMES, CODES).save_as(tmp_path / "out.dcm")
        _, places = read_back(tmp_path / "out.dcm")
        assert places == expected_places(series, labels)
        assert len(places) == 12 + 6 + 1

    def test_overlapping_regions_keep_their_overlap(self, series: Series, tmp_path: Path) -> None:
        regions = np.zeros((4, 5, 6, 3), dtype=np.uint8)
        regions[0:3, 1:4, 1:4, 0] = 1
        regions[1:3, 1:3, 1:3, 1] = 1
        regions[1, 1, 1:3, 2] = 1
        make_segmentation(series, regions, NAMES, CODES).save_as(tmp_path / "out.dcm")
        file, places = read_back(tmp_path / "out.dcm")
        assert places == expected_places(series, regions)
        assert {1, 2, 3} in places.values()
        assert file.SegmentsOverlap == "YES"

    def test_nothing_found(self, series: Series, tmp_path: Path) -> None:
        make_segmentation(series, np.zeros((4, 5, 6), dtype=np.uint8), NAMES, CODES).save_as(tmp_path / "out.dcm")
        file, places = read_back(tmp_path / "out.dcm")
        assert not places
        assert file.number_of_segments == 3

    def test_each_frame_refers_to_its_source(self, series: Series, labels: NDArray[Any]) -> None:
        made = make_segmentation(series, labels, NAMES, CODES)
        sources = {d.SOPInstanceUID: d for d in series.datasets}
        assert len(made.PerFrameFunctionalGroupsSequence) == 2 + 3  # class 1 on two slices, class 3 on three
        for frame in made.PerFrameFunctionalGroupsSequence:
            reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
            source = sources[reference.ReferencedSOPInstanceUID]
            if "PerFrameFunctionalGroupsSequence" in source:
                source = source.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
                source = source.PlanePositionSequence[0]
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            np.testing.assert_allclose(position, source.ImagePositionPatient, atol=1e-6)


class TestRecord:
    @pytest.fixture
    def made(self, scan: Any, export: Export, labels: NDArray[Any]) -> Any:
        return make_segmentation(read_series(export(scan.slices())), labels, NAMES, CODES, version="1.2.3")

    def test_belongs_to_patient_study_and_space_of_its_source(self, made: Any, scan: Any) -> None:
        assert made.PatientID == "P1"
        assert made.StudyInstanceUID == scan.study_uid
        assert made.FrameOfReferenceUID == scan.frame_uid
        assert made.SeriesInstanceUID != scan.series_uid
        assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == scan.series_uid
        assert (made.Modality, made.SegmentationType) == ("SEG", "BINARY")
        assert made.SoftwareVersions == "1.2.3"

    def test_has_a_segment_for_every_class_also_those_not_found(self, made: Any) -> None:
        assert [s.SegmentNumber for s in made.SegmentSequence] == [1, 2, 3]
        assert [s.SegmentLabel for s in made.SegmentSequence] == list(NAMES)
        frames = {
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            for frame in made.PerFrameFunctionalGroupsSequence
        }
        assert frames == {1, 3}

    def test_codes_are_those_of_the_table(self, made: Any) -> None:
        kidney, odd, tumor = (s.SegmentedPropertyTypeCodeSequence[0] for s in made.SegmentSequence)
        assert (kidney.CodeValue, kidney.CodingSchemeDesignator, kidney.CodeMeaning) == ("64033007", "SCT", "Kidney")
        (side,) = kidney.SegmentedPropertyTypeModifierCodeSequence
        assert (side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning) == ("24028007", "SCT", "Right")
        assert "SegmentedPropertyTypeModifierCodeSequence" not in tumor
        assert (odd.CodeValue, odd.CodingSchemeDesignator, odd.CodeMeaning) == ("odd_thing", "99BIPVL", "Odd thing")
        assert made.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99BIPVL"

    def test_category_tells_anatomy_from_abnormality(self, made: Any) -> None:
        found = [s.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning for s in made.SegmentSequence]
        anatomy = "Anatomical Structure"
        assert found == [anatomy, anatomy, "Morphologically Abnormal Structure"]

    def test_names_the_algorithm(self, made: Any) -> None:
        for segment in made.SegmentSequence:
            assert segment.SegmentAlgorithmType == "AUTOMATIC"
            algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
            assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("BiPVL-Seg", "1.2.3")
            assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"

    def test_classes_without_any_code(self, scan: Any, export: Export, labels: NDArray[Any]) -> None:
        made = make_segmentation(read_series(export(scan.slices())), labels, ("a" * 20, "b", "c"))
        kinds = [s.SegmentedPropertyTypeCodeSequence[0] for s in made.SegmentSequence]
        assert [kind.CodingSchemeDesignator for kind in kinds] == ["99BIPVL"] * 3
        assert kinds[0].LongCodeValue == "a" * 20  # a CodeValue ends at 16 characters


class TestSourcesThatLackSomething:
    def test_orientation_and_spacing_of_each_frame(self, scan: Any, export: Export, labels: NDArray[Any]) -> None:
        source = scan.multi_frame([0, 1, 2, 3, 4, 5])
        shared = source.SharedFunctionalGroupsSequence[0]
        for frame in source.PerFrameFunctionalGroupsSequence:
            frame.PlaneOrientationSequence = shared.PlaneOrientationSequence
            frame.PixelMeasuresSequence = shared.PixelMeasuresSequence
        del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence
        self.check(read_series(export([source])), labels)

    def test_orientations_that_differ_in_their_last_digit(self, scan: Any, export: Export, labels: Any) -> None:
        datasets = scan.slices()
        datasets[2].ImageOrientationPatient[0] += 1e-5
        datasets[3].PixelSpacing[0] += 1e-6
        self.check(read_series(export(datasets)), labels)

    def test_patient_and_study_taken_away(self, scan: Any, export: Export, labels: NDArray[Any]) -> None:
        datasets = scan.slices()
        for dataset in datasets:
            del dataset.PatientID, dataset.PatientName
        made = self.check(read_series(export(datasets)), labels)
        assert made.PatientID in (None, "")

    def check(self, series: Series, labels: NDArray[Any]) -> Any:
        made = make_segmentation(series, labels, NAMES, CODES)
        measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert list(measures.PixelSpacing) == [1.5, 2.0]
        assert measures.SpacingBetweenSlices == pytest.approx(2.5, abs=1e-4)
        assert measures.SliceThickness == pytest.approx(2.5, abs=1e-4)
        return made


class TestFaults:
    @pytest.fixture
    def plain(self, scan: Any, export: Export) -> Series:
        return read_series(export(scan.slices()))

    @pytest.mark.parametrize(
        ("volume", "message"),
        [
            (np.full((4, 5, 6), 4), r"labels from 0 to 3, found also \[4\]"),
            (np.full((4, 5, 6), 0.5), r"labels from 0 to 3, found also \[0\.5\]"),
            (np.full((4, 5, 6, 3), 2), r"labels from 0 to 1, found also \[2\]"),
            (np.zeros((4, 5, 6, 2)), r"one channel for each of 3 regions, found the shape \(4, 5, 6, 2\)"),
            (np.zeros((6, 5, 4)), r"'Abdomen'.*\(4, 5, 6\); a volume of \(6, 5, 4\) does not fit"),
        ],
    )
    def test_labels(self, plain: Series, volume: NDArray[Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make_segmentation(plain, volume, NAMES, CODES)


CONCEPTS = Path(__file__).resolve().parents[2] / "bipvl_bundle" / "configs" / "concepts"
TABLES = [path for path in sorted(CONCEPTS.glob("*.yaml")) if not path.stem.endswith("_ambiguous")]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
class TestCodesOfTheTables:
    def test_stand_in_pydicoms_dictionary(self, path: Path) -> None:
        given = {code for code in ConceptTable.load(path).codes if code is not None}
        for scheme in {code.scheme for code in given}:
            entries = getattr(codes, scheme)
            known = {(e.value, e.meaning.casefold()) for e in (getattr(entries, k) for k in entries.dir())}
            assert {(c.value, c.meaning.casefold()) for c in given if c.scheme == scheme} <= known

    def test_differ_from_class_to_class(self, path: Path) -> None:
        given = [code for code in ConceptTable.load(path).codes if code is not None]
        assert len(set(given)) == len(given) > 0

    def test_side_is_that_of_the_name(self, path: Path) -> None:
        table = ConceptTable.load(path)
        for name, code in zip(table.classes, table.codes, strict=True):
            words = f"{code.modifier} {code.meaning}".lower().split() if code else []
            for side in ("left", "right", "anterior", "posterior"):
                assert not words or (side in name.split()) == (side in words), name
