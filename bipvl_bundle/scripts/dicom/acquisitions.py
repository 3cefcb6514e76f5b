"""Whether the slices of a series are of one acquisition, and the choice of one of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from scripts.dicom.geometry import Plane
from scripts.messages.phrases import some

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["one_acquisition"]

ATTRIBUTES = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoTime",
    "EchoNumbers",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "DiffusionBValue",
    "FlipAngle",
    "InversionTime",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "KVP",
    "ImageType",
    "AcquisitionTime",
)
"""What differs between phases, echoes and reconstructions that a scanner has put into one series."""


def one_acquisition(
    datasets: Sequence[Dataset], planes: Sequence[Plane], series: str, wanted: str | None = None
) -> list[int]:
    """Return the indices of the slices of one acquisition: all, or those that are wanted.

    Slices are of several where an attribute divides them into groups of two slices or more that lie within each other,
    such as the phases of a contrast study. Groups one behind the other are parts of one volume.

    Args:
        datasets: one a slice.
        planes: their places.
        series: how error messages call them all.
        wanted: one of the groups, as "AcquisitionNumber=2"; None: there must be one.

    Raises:
        ValueError: there are several, which the message lists; or none is as wanted.
    """
    if wanted is not None:
        return _chosen(datasets, series, wanted)
    normal = np.cross(*planes[0].directions)
    places = np.array([plane.position @ normal for plane in planes])
    divided = {name: values for name in ATTRIBUTES if _divides(values := _values(datasets, name), places)}
    if divided:
        lists = [f"{name} ({_counted(values)})" for name, values in divided.items()]
        name, values = next(iter(divided.items()))
        raise ValueError(
            f"{series} holds several acquisitions, whose slices would alternate in one volume. They differ in "
            f"{'; '.join(lists)}. Take one of them, such as --acquisition '{name}={values[0]}'."
        )
    return list(range(len(planes)))


def _values(datasets: Sequence[Dataset], name: str) -> list[str]:
    return [str(dataset.get(name, "")) for dataset in datasets]


def _counted(values: Sequence[str]) -> str:
    return some(f"{value or 'none'}: {count} slices" for value, count in sorted(Counter(values).items()))


def _divides(values: Sequence[str], places: np.ndarray) -> bool:
    """Return whether slices of one value lie between those of another; a value of a single slice is its own time."""
    groups = [places[[value == other for other in values]] for value in dict.fromkeys(values)]
    if len(groups) < 2 or min(map(len, groups)) < 2:
        return False
    spans = sorted((float(group.min()), float(group.max())) for group in groups)
    return any(low < high for (_, high), (low, _) in pairwise(spans))


def _chosen(datasets: Sequence[Dataset], series: str, wanted: str) -> list[int]:
    name, sign, value = wanted.partition("=")
    if not sign or not name.isidentifier():
        raise ValueError(f"acquisition is '{wanted}'; expected an attribute and its value, as 'AcquisitionNumber=2'.")
    values = _values(datasets, name)
    found = [index for index, other in enumerate(values) if other == value]
    if not found:
        raise ValueError(f"{series} has no slice with {wanted}; found {name} {_counted(values)}.")
    return found
