"""Writes a label map on the grid of a DICOM series as a DICOM segmentation (SEG)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.utils import optional_import
from numpy.typing import NDArray

from scripts.dicom.series import Series, highdicom, pydicom, require_dicom
from scripts.words.codes import ClassCode

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

__all__ = ["PRIVATE_SCHEME", "make_segmentation"]

codes, _ = optional_import("pydicom.sr.codedict", name="codes")
ALGORITHM = "BiPVL-Seg"
PRIVATE_SCHEME = "99BIPVL"
LONGEST_TEXT = 64  # characters, of a label or a code's meaning
# Of type 2 in the standard, "may be empty", but some anonymisers take them away.
PATIENT_AND_STUDY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


def make_segmentation(
    series: Series,
    labels: NDArray[Any],
    class_names: Sequence[str],
    class_codes: Sequence[ClassCode | None] = (),
    *,
    version: str = "unknown",
) -> Segmentation:
    """Make a binary SEG with one segment per class; segment n is label n of the label map.

    A class that was not found keeps its segment, without frames: it was looked for. The frames lie where the
    source images lie, of which each refers to its own. A class without a code is given one of the private
    scheme "99BIPVL", whose value is the class's name in lower case with underscores. Attributes that a source
    image lacks and a SEG must have are set in `series.datasets`, empty where they are about patient and study.

    Args:
        series: what was segmented.
        labels: on the grid of `series.image`: C x R x S, the numbers of exclusive classes, 0 the background;
            or C x R x S x N, zeros and ones, for regions that may overlap.
        class_names: N names in label order.
        class_codes: N codes or None, or empty: none has one.
        version: of the bundle, for the record.

    Returns:
        A dataset to be saved with its method ``save_as``.

    Raises:
        ImportError: highdicom is not installed.
        ValueError: the labels are of another shape, or other values, than series and classes have it.
    """
    require_dicom()
    frames = series.to_frames(_check_labels(labels, len(class_names)))
    _complete(series)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=ALGORITHM, family=codes.cid7162.ArtificialIntelligence, version=version
    )
    described = zip(class_names, class_codes or [None] * len(class_names), strict=True)
    source = series.datasets[0]
    return highdicom.seg.Segmentation(
        source_images=series.datasets,
        pixel_array=frames,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(n, *pair, algorithm) for n, pair in enumerate(described, start=1)],
        series_instance_uid=highdicom.UID(),
        series_number=1000 + int(source.get("SeriesNumber") or 0),
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=ALGORITHM,
        manufacturer_model_name=ALGORITHM,
        software_versions=version,
        device_serial_number="none",
        series_description=f"{ALGORITHM} of series {source.get('SeriesNumber', '?')}",
        content_description="Segmentation by a network, not reviewed",
        coding_schemes=[_private_scheme()],
    )


def _check_labels(labels: NDArray[Any], count: int) -> NDArray[Any]:
    regions = labels.ndim == 4
    if regions and labels.shape[-1] != count:
        raise ValueError(f"Expected one channel for each of {count} regions, found the shape {labels.shape}.")
    highest = 1 if regions else count
    unknown = np.setdiff1d(np.unique(labels), np.arange(highest + 1))
    if len(unknown):
        raise ValueError(f"Expected labels from 0 to {highest}, found also {unknown[:10].tolist()}.")
    return labels.astype(np.min_scalar_type(highest))


def _describe(number: int, name: str, code: ClassCode | None, algorithm: Any) -> SegmentDescription:
    categories = codes.cid7150
    if code is None:
        concept = highdicom.sr.CodedConcept(name.lower().replace(" ", "_"), PRIVATE_SCHEME, name[:LONGEST_TEXT])
    else:
        concept = highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)
    abnormal = code is not None and code.abnormal
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:LONGEST_TEXT],
        segmented_property_category=(
            categories.MorphologicallyAbnormalStructure if abnormal else categories.AnatomicalStructure
        ),
        segmented_property_type=concept,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    if code is not None and code.modifier:
        modifier = highdicom.sr.CodedConcept.from_code(getattr(codes.SCT, code.modifier.capitalize()))
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description


def _private_scheme() -> Any:
    return highdicom.coding_schemes.CodingSchemeIdentificationItem(
        PRIVATE_SCHEME, name="Names of BiPVL-Seg's classes", responsible_organization=ALGORITHM
    )


def _complete(series: Series) -> None:
    """Add to the source images, in memory, attributes that highdicom needs and some archives drop."""
    step = float(np.linalg.norm(series.affine[:3, 2]))  # mm
    for dataset in series.datasets:
        for keyword in PATIENT_AND_STUDY:
            if keyword not in dataset:
                setattr(dataset, keyword, None)
        measures = dataset
        if "PerFrameFunctionalGroupsSequence" in dataset:
            shared, frame = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence[0]
            for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):  # all frames have the same
                if keyword not in shared:
                    setattr(shared, keyword, frame[keyword].value)
            measures = shared.PixelMeasuresSequence[0]
        else:  # equal within a tolerance, where highdicom wants them equal to the digit
            for keyword in ("ImageOrientationPatient", "PixelSpacing"):
                setattr(dataset, keyword, series.datasets[0][keyword].value)
        measures.SpacingBetweenSlices = pydicom.valuerep.DS(step, auto_format=True)
        if measures.get("SliceThickness") is None:
            measures.SliceThickness = measures.SpacingBetweenSlices
