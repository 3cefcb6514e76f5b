"""Survey of a data set: headers of all files, voxels of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scripts.data import nifti
from scripts.data.own.file_matching import MatchedCase
from scripts.geometry.grid import Grid, ras_grid
from scripts.messages.phrases import first_lines

_VOXELS_A_CASE = 100_000


class Header(NamedTuple):
    """Header of one image file."""

    grid: Grid
    channels: int


@dataclass(frozen=True)
class Survey:
    """Statistics of a data set.

    Attributes:
        headers: one for each case: the grid of its first image, the channels of all its images together.
        label_channels: of every label: 1, or the number of overlapping regions.
        sampled: how many cases were read in full.
        foreground: percentiles 0.5, 50 and 99.5 of the labelled voxels of the first channel in the sample;
            empty where none was found.
        lowest: the smallest value in the sample.
        label_values: every value of the labels in the sample.
    """

    headers: list[Header]
    label_channels: int
    sampled: int
    foreground: tuple[float, ...]
    lowest: float
    label_values: tuple[float, ...]

    @property
    def channels(self) -> int:
        return self.headers[0].channels

    def median_spacing(self) -> tuple[float, ...]:
        """Return the median spacing along right, anterior and superior, mm."""
        return tuple(np.median([header.grid.spacing for header in self.headers], axis=0).tolist())

    def sizes(self, spacing: Sequence[float]) -> NDArray[np.int64]:
        """Return voxels along right, anterior, superior after resampling to `spacing` (mm).  # cases x 3"""
        return np.array([header.grid.resampled(spacing) for header in self.headers])


def survey(cases: Sequence[MatchedCase], *, sample: int = 20, progress: bool = True) -> Survey:
    """Read all headers, and the voxels of `sample` cases spread evenly over the list, one at a time.

    Raises:
        ValueError: files that cannot be read, numbers of channels that differ from case to case, or no case to read
            in full.
    """
    if sample < 1:
        raise ValueError(f"sample is {sample}; expected 1 or more cases whose values are read.")
    headers = [_case_header(case) for case in tqdm(cases, desc="Reading headers", unit="case", disable=not progress)]
    labels = [(str(case.label), read_header(case.label).channels) for case in cases if case.label]
    _require_one("channels", [(str(case.images[0]), h.channels) for case, h in zip(cases, headers, strict=True)])
    _require_one("label channels", labels)
    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, min(sample, len(cases))).round().astype(int))]
    foreground, lowest, values = [], np.inf, set[float]()
    for case in tqdm(chosen, desc="Reading a sample of the values", unit="case", disable=not progress):
        image, label = (_read(path) for path in (case.images[0], case.label) if path)
        lowest = min(lowest, float(np.nanmin(image)))
        values.update(np.unique(label).tolist())
        foreground.append(_labelled(image, label))
    voxels = np.concatenate(foreground)
    percentiles = tuple(np.percentile(voxels, (0.5, 50, 99.5)).tolist()) if len(voxels) else ()
    return Survey(headers, labels[0][1], len(chosen), percentiles, lowest, tuple(sorted(values)))


def read_header(path: Path) -> Header:
    """Read the header of a NIfTI file; the last axis of a 4D file counts as channels.

    Raises:
        ValueError: the file cannot be read, or is no volume.
    """
    header = _opened(path, nifti.read_header)
    whole = header.get_data_shape()
    shape = whole[:3] + tuple(n for n in whole[3:] if n > 1)
    try:
        if len(shape) > 4:
            raise ValueError(f"found {len(shape)} dimensions of more than one voxel, shape {whole}")
        return Header(ras_grid(nifti.affine_in_mm(header), shape[:3]), shape[3] if len(shape) > 3 else 1)
    except ValueError as error:
        raise ValueError(f"'{path}' is no volume: {error}. Export it again, or move it away.") from error


def _case_header(case: MatchedCase) -> Header:
    headers = [read_header(path) for path in case.images]
    return Header(headers[0].grid, sum(header.channels for header in headers))


def _opened(path: Path, opening: Callable[[Path], Any]) -> Any:
    try:
        return opening(path)
    except (nifti.UnusableFile, OSError) as error:
        reason = f"{type(error).__name__}: {first_lines(error)}"
        raise ValueError(f"'{path}' cannot be read as NIfTI ({reason}). Export it again, or move it away.") from error


def _read(path: Path) -> NDArray[Any]:
    return np.asarray(_opened(path, nifti.load_nifti).dataobj)


def _labelled(image: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    """Return a sample of the first channel's values inside the label; empty if the grids differ."""
    image, mask = (array.reshape(*array.shape[:3], -1) for array in (image, label > 0))
    if image.shape[:3] != mask.shape[:3]:
        return np.empty(0)
    voxels = image[..., 0][mask.any(axis=-1)]
    return voxels[np.isfinite(voxels)][:: max(1, len(voxels) // _VOXELS_A_CASE)]


def _require_one(what: str, found: Sequence[tuple[str, int]]) -> None:
    counts = [count for _, count in found]
    usual = max(set(counts), key=counts.count)
    odd = [(path, count) for path, count in found if count != usual]
    if odd:
        raise ValueError(
            f"{len(odd)} of {len(found)} cases have another number of {what} than {usual}: '{odd[0][0]}' has "
            f"{odd[0][1]}. Expected one number; extract the volumes to use, or move those cases away."
        )
