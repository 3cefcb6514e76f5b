"""Check of one case: loads and measures it, and reports its problems."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from monai.transforms import generate_spatial_bounding_box
from numpy.typing import NDArray

from scripts.data.cases import Item, files_of
from scripts.data.nifti import UnusableFile, load_nifti
from scripts.geometry.grid import Grid, ras_grid
from scripts.messages.phrases import first_lines

_SAMPLED = 2_000_000  # voxels that percentiles are taken of


@dataclass(frozen=True)
class Intensity:
    """Intensity settings of the preprocessing.

    Attributes:
        window: the values that become 0 and 1 and beyond which is clipped; None for a z-score.
        crop: whether it crops to the voxels above the window's lower end, or above zero.
    """

    window: tuple[float, float] | None = None
    crop: bool = False

    @property
    def floor(self) -> float:
        return self.window[0] if self.window else 0.0


@dataclass(frozen=True)
class CaseReport:
    """Measurements and problems of one case. Shares are between 0 and 1; None where nothing could be measured.

    Attributes:
        case: its name.
        section: of the datalist.
        fold: the one that holds it out.
        channels: of the image.
        grid: axes along right, anterior, superior.
        oriented: whether the header says how the axes lie; else left and right are a guess.
        resampled: size in voxels at the overlay's spacing.
        cached: bytes in memory at that size, image and label, before any crop.
        values: smallest and largest of the image.
        span: of the window, the share that the values fill, the outermost 1% apart.
        clipped: of all voxels, the share beyond the window.
        labelled_clipped: of the labelled voxels.
        nonzero: of all voxels, the share that is not zero.
        cut_off: labelled voxels that the crop would take away.
        counts: voxels of each class; None without label, or where its channels do not tell classes.
        problems: why it cannot be used.
    """

    case: str
    section: str = "training"
    fold: int | None = None
    channels: int | None = None
    grid: Grid | None = None
    oriented: bool = True
    resampled: tuple[int, ...] | None = None
    cached: int = 0
    values: tuple[float, float] | None = None
    span: float | None = None
    clipped: float | None = None
    labelled_clipped: float | None = None
    nonzero: float | None = None
    cut_off: int = 0
    counts: tuple[int, ...] | None = None
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CaseCheck:
    """Callable that loads one case and returns its report; can be sent to another process.

    Args:
        load: the steps of the pipeline from the files to what `check` looks at: C x H x W x D, with affine.
        check: tells what is wrong with a loaded case, in words.
        spacing: of the pipeline, mm.
        num_classes: foreground classes, or regions.
        softmax: whether one label channel holds the numbers of the classes.
        intensity: what the pipeline does with the values.
    """

    load: Sequence[Callable[[Any], Any]]
    check: Callable[[Mapping[Any, Any]], list[str]]
    spacing: Sequence[float]
    num_classes: int
    softmax: bool
    intensity: Intensity

    def __call__(self, item: Item, section: str = "training", fold: int | None = None) -> CaseReport:
        """Return the report of a case; problems are listed in it and not raised."""
        report = CaseReport(str(item["case"]), section, fold)
        missing = [f"{kind} {path}: there is no such file" for kind, path in files_of(item) if not os.path.isfile(path)]
        if missing:
            return replace(report, problems=missing)
        try:
            case: Any = {key: item[key] for key in ("image", "label") if key in item}
            for transform in self.load:
                case = transform(case)
            report = replace(report, problems=self.check(case))
            report = self._with_grid(report, case)
            return report if report.problems else self._with_values(report, case)
        except Exception as error:  # any fault of a file is a line of the table, and the next case is looked at
            return replace(report, problems=report.problems or _reasons(item, error))

    def _with_grid(self, report: CaseReport, case: Mapping[str, Any]) -> CaseReport:
        image = case["image"]
        if image.ndim != 4:
            return report
        grid = ras_grid(image.affine, image.shape[1:])
        resampled = grid.resampled(self.spacing)
        channels = sum(len(case[key]) for key in ("image", "label") if key in case)
        codes = [int(image.meta.get(code, 1)) for code in ("sform_code", "qform_code")]
        return replace(
            report,
            channels=len(image),
            grid=grid,
            oriented=any(codes),
            resampled=resampled,
            cached=int(np.prod(resampled)) * channels * image.element_size(),
        )

    def _with_values(self, report: CaseReport, case: Mapping[str, Any]) -> CaseReport:
        image = np.asarray(case["image"])
        report = replace(
            report,
            values=(float(image.min()), float(image.max())),
            span=_span(image, self.intensity.window),
            clipped=_beyond(image, self.intensity.window),
            nonzero=float(np.count_nonzero(image)) / image.size,
        )
        if "label" not in case:
            return report
        label = np.asarray(case["label"])
        mask: NDArray[np.bool_] = np.any(label > 0, axis=0)
        return replace(
            report,
            counts=self._counts(label),
            labelled_clipped=_beyond(image[:, mask], self.intensity.window),
            cut_off=_outside(mask, np.any(image > self.intensity.floor, axis=0)) if self.intensity.crop else 0,
        )

    def _counts(self, label: NDArray[Any]) -> tuple[int, ...] | None:
        if self.softmax:
            found = np.bincount(label.ravel().astype(np.int64), minlength=self.num_classes + 1)
            return tuple(found[1 : self.num_classes + 1].tolist())
        return tuple(int(np.count_nonzero(region)) for region in label) if len(label) == self.num_classes else None


def _reasons(item: Item, error: Exception) -> list[str]:
    """Return a line for each unreadable file, or else the first line of the pipeline's error."""
    found = []
    for kind, path in files_of(item):
        try:
            load_nifti(path)
        except UnusableFile as fault:
            found.append(f"{kind} {fault}")
    return found or [f"cannot be loaded ({_said(error)})"]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_lines(error)}"


def _span(image: NDArray[Any], window: tuple[float, float] | None) -> float | None:
    if window is None:
        return None
    voxels = image.ravel()[:: max(1, image.size // _SAMPLED)]
    low, high = np.clip(np.percentile(voxels, (0.5, 99.5)), *window)
    return float(high - low) / (window[1] - window[0])


def _beyond(voxels: NDArray[Any], window: tuple[float, float] | None) -> float | None:
    if window is None or not voxels.size:
        return None
    return float(np.count_nonzero((voxels < window[0]) | (voxels > window[1]))) / voxels.size


def _outside(mask: NDArray[np.bool_], kept: NDArray[np.bool_]) -> int:
    """Count the voxels of `mask` outside the bounding box of `kept`."""
    box = tuple(map(slice, *generate_spatial_bounding_box(kept[None])))  # an empty one where nothing is kept
    return int(mask.sum() - mask[box].sum())
