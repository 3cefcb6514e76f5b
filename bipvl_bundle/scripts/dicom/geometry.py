"""Positions of the slices of a series, and the check that they form one regular volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Plane", "read_planes", "require", "stack_affine", "stack_order"]

Floats = NDArray[np.float64]

TOLERANCE_MM = 0.1  # how far a slice may lie from its place in the regular stack; scanners round to 0.01 or so
SAME_PLACE_MM = 0.01
SAME_DIRECTION = 1e-3  # of a direction cosine: 0.25 mm at the far edge of a field of 500 mm
DECIMALS = 4  # of a pixel spacing in mm, to which two slices must agree
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Plane:
    """Position of one slice: a file of its own, or a frame of a multi-frame file.

    Attributes:
        name: how error messages call it.
        frame_of_reference: UID of the space that it lies in.
        position: of the centre of its first pixel, mm, LPS.  # 3
        directions: unit vectors along a row and along a column, LPS.  # 2 x 3
        spacing: mm between rows and between columns.
        shape: number of rows and of columns.
    """

    name: str
    frame_of_reference: str
    position: Floats
    directions: Floats
    spacing: tuple[float, float]
    shape: tuple[int, int]


def read_planes(path: Path, dataset: Dataset, series: str) -> list[Plane]:
    """Read the slice positions of a file, one per frame.

    Raises:
        ValueError: it is a colour image, or an attribute is absent or malformed.
    """
    instance = f"{path.name} (instance {dataset.get('InstanceNumber', '?')})"
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise ValueError(f"{series}: {instance} is a colour image; expected grey values of CT or MR.")
    require(dataset, "FrameOfReferenceUID", f"{series}: {instance}")
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    count = int(dataset.get("NumberOfFrames") or 1)
    if not frames and count == 1:
        return [_plane(dataset, [dataset], instance, series)]
    if len(frames) != count:
        raise ValueError(
            f"{series}: {instance} has {count} frames and tells the place of {len(frames)}; expected one slice a "
            "file, or an enhanced multi-frame image."
        )
    shared = list(require(dataset, "SharedFunctionalGroupsSequence", f"{series}: {instance}"))
    return [
        _plane(dataset, _functional_groups([frame, *shared]), f"frame {number} of {path.name}", series)
        for number, frame in enumerate(frames, start=1)
    ]


def _functional_groups(holders: Sequence[Dataset]) -> list[Dataset]:
    names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    return [item for holder in holders for name in names for item in holder.get(name) or []]


def _plane(dataset: Dataset, holders: Sequence[Dataset], name: str, series: str) -> Plane:
    found = {}
    for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        holder = next((holder for holder in holders if keyword in holder), dataset)
        value = require(holder, keyword, f"{series}: {name}")
        found[keyword] = np.array(value, dtype=np.float64)
        if found[keyword].shape != (length,) or not np.isfinite(found[keyword]).all():
            raise ValueError(f"{series}: {name} has {keyword} {value}; expected {length} numbers.")
    return Plane(
        name=name,
        frame_of_reference=str(dataset.FrameOfReferenceUID),
        position=found["ImagePositionPatient"],
        directions=found["ImageOrientationPatient"].reshape(2, 3),
        spacing=(float(found["PixelSpacing"][0]), float(found["PixelSpacing"][1])),
        shape=(int(dataset.Rows), int(dataset.Columns)),
    )


def require(dataset: Dataset, keyword: str, where: str) -> Any:
    """Return a DICOM attribute that a slice must have; raises an error if it is absent."""
    value = dataset.get(keyword)
    if value is None or value == "":
        raise ValueError(f"{where} has no {keyword}; expected a CT or MR slice with its place in space.")
    return value


def stack_order(planes: Sequence[Plane], series: str) -> list[int]:
    """Return the order of slices along the cross product of their row and column directions.

    Args:
        planes: at least one, in any order.
        series: how error messages call them all.

    Returns:
        Indices into `planes`.

    Raises:
        ValueError: there is a single slice; one differs from the others in frame of reference, size, pixel
            spacing or orientation; two lie in one place; one is missing; they are unevenly spaced; or the stack
            is sheared, as under a tilted gantry. The message names the series and the slice.
    """
    if len(planes) < 2:
        raise ValueError(f"{series} has a single slice, {planes[0].name}; expected a volume of at least two.")
    _require_one(planes, series, "frame of reference", _frame_of_reference, _frame_of_reference)
    _require_one(planes, series, "size", lambda plane: plane.shape, _size_text)
    _require_one(planes, series, "pixel spacing", lambda plane: tuple(np.round(plane.spacing, DECIMALS)), _spacing_text)
    _require_orientation(planes, series)
    normal = np.cross(*planes[0].directions)
    distances = np.array([plane.position @ normal for plane in planes])  # mm
    order = np.argsort(distances, kind="stable").tolist()
    ordered = [planes[index] for index in order]
    _require_steps(ordered, distances[order], series)
    _require_straight(ordered, normal, series)
    return order


def stack_affine(ordered: Sequence[Plane]) -> Floats:
    """Return the affine from indices (column, row, slice) to mm in RAS+ for slices in `stack_order`.  # 4 x 4"""
    first, last = ordered[0], ordered[-1]
    row, column = first.directions
    between_rows, between_columns = first.spacing
    affine = np.eye(4)
    affine[:3, 0] = row * between_columns
    affine[:3, 1] = column * between_rows
    affine[:3, 2] = (last.position - first.position) / (len(ordered) - 1)
    affine[:3, 3] = first.position
    return LPS_TO_RAS @ affine


def _require_one(
    planes: Sequence[Plane],
    series: str,
    quality: str,
    key: Callable[[Plane], Hashable],
    text: Callable[[Plane], str],
) -> None:
    counts = Counter(key(plane) for plane in planes)
    if len(counts) == 1:
        return
    usual = counts.most_common(1)[0][0]
    odd = [plane for plane in planes if key(plane) != usual]
    like = next(plane for plane in planes if key(plane) == usual)
    raise ValueError(
        f"{series} mixes slices of different {quality}: {counts[usual]} have {text(like)}, but {odd[0].name} has "
        f"{text(odd[0])}{_and_more(len(odd) - 1)}. Take out what does not belong to the volume, such as a localizer."
    )


def _require_orientation(planes: Sequence[Plane], series: str) -> None:
    for plane in planes:
        product = plane.directions @ plane.directions.T
        if not np.allclose(product, np.eye(2), atol=SAME_DIRECTION):
            raise ValueError(
                f"{series}: {plane.name} has directions that are no right angle of unit vectors, "
                f"{_orientation_text(plane)}; export the series again."
            )
    directions = np.stack([plane.directions for plane in planes])  # slices x 2 x 3
    usual = np.median(directions, axis=0)
    groups = np.abs(directions - usual).max(axis=(1, 2)) > SAME_DIRECTION
    if groups.any():
        key = {id(plane): tuple(np.round(plane.directions, 2).ravel() + 0.0) for plane in planes}
        _require_one(planes, series, "orientation", lambda plane: key[id(plane)], _orientation_text)
        odd = planes[int(np.argmax(groups))]
        raise ValueError(
            f"{series}: {odd.name} has another orientation, {_orientation_text(odd)}, than most slices, "
            f"{np.round(usual, 4).ravel().tolist()}; expected parallel slices."
        )


def _require_steps(ordered: Sequence[Plane], distances: Floats, series: str) -> None:
    """Raise an error at duplicate, missing or misplaced slices; `distances` along the normal, ascending."""
    gaps = np.diff(distances)
    twice = np.flatnonzero(gaps < SAME_PLACE_MM)
    if len(twice):
        first, second = ordered[twice[0]], ordered[twice[0] + 1]
        raise ValueError(
            f"{series} has two slices in one place: {first.name} and {second.name} lie at {distances[twice[0]]:.2f} mm"
            f"{_and_more(len(twice) - 1)}. Expected one volume: remove the copies, or split the series into its "
            "phases, echoes or times."
        )
    step = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # of two in the middle the smaller: the larger may be the fault
    wide = np.flatnonzero(gaps > 1.5 * step)
    if len(wide):
        below, above = ordered[wide[0]], ordered[wide[0] + 1]
        count = max(round(gaps[wide[0]] / step) - 1, 1)
        raise ValueError(
            f"{series} lacks {count} slice(s) between {below.name} and {above.name}: they are {gaps[wide[0]]:.2f} mm "
            f"apart, the others {step:.2f} mm{_and_more(len(wide) - 1)}. Export the series again, whole."
        )
    even = np.linspace(distances[0], distances[-1], len(distances))
    off = np.abs(distances - even)
    if off.max() > TOLERANCE_MM:
        worst = int(np.argmax(off))
        raise ValueError(
            f"{series} is unevenly spaced: the steps go from {gaps.min():.2f} to {gaps.max():.2f} mm, and "
            f"{ordered[worst].name} lies {off[worst]:.2f} mm from its place. Expected steps of one length, to "
            f"{TOLERANCE_MM} mm: resample the series first."
        )


def _require_straight(ordered: Sequence[Plane], normal: Floats, series: str) -> None:
    offsets = np.stack([plane.position - ordered[0].position for plane in ordered])  # slices x 3
    within = offsets - np.outer(offsets @ normal, normal)
    shift = np.linalg.norm(within, axis=1)  # mm, in the plane
    if shift.max() <= TOLERANCE_MM:
        return
    worst = int(np.argmax(shift))
    angle = np.degrees(np.arctan2(shift[-1], offsets[-1] @ normal))
    raise ValueError(
        f"{series} is no upright stack: {ordered[worst].name} is shifted by {shift[worst]:.2f} mm within its plane "
        f"against {ordered[0].name} (over the whole stack {angle:.1f} degrees, the gantry's tilt if there is one). "
        "Correct the tilt with a converter that resamples, and segment its NIfTI with inference.yaml."
    )


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count else ""


def _frame_of_reference(plane: Plane) -> str:
    return plane.frame_of_reference


def _size_text(plane: Plane) -> str:
    return "{} x {} rows and columns".format(*plane.shape)


def _spacing_text(plane: Plane) -> str:
    return "{:g} x {:g} mm".format(*plane.spacing)


def _orientation_text(plane: Plane) -> str:
    return str(np.round(plane.directions, 4).ravel().tolist())
