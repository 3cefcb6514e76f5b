"""Fingerprint of the values that a model has learnt from, and what an image with other values looks like."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from monai.transforms import ScaleIntensityRanged
from numpy.typing import NDArray

from scripts.data.cases import Item, images_of
from scripts.data.loading import load_volume
from scripts.data.nifti import UnusableFile

__all__ = ["AIR", "LEVELS", "describe_values", "has_window", "levels_of", "looks_like"]

LEVELS = "levels"
"""Where the levels of a loaded file's values stand in the metadata of its volume, as JSON."""
AIR = -200.0
"""An image with values below is taken for CT in HU."""
MOST_CASES = 64
"""Of more training cases so many are read, evenly spread."""
VOXELS = 50_000
"""So many of a channel are looked at, evenly spread."""
PERCENTILES = (0.5, 5, 50, 95, 99.5)
STEP = 1024.0
"""What is added to HU where a file is to hold no negative value, and taken away again by the file's intercept."""


def levels_of(values: NDArray[Any]) -> dict[str, float]:
    """Return what tells the scale of one channel, whatever part of the body it shows.

    Args:
        values: finite, in any order and number.

    Returns:
        ``low`` and ``high``, the percentiles 0.5 and 99.5; ``tissue``, the median of the brighter of two parts (Otsu's
        method), which moves with the values and hardly with the share of air; ``zero``, the share of zeros.
    """
    some = _spread(values.ravel(order="K")).astype(np.float64)
    low, high = np.percentile(some, (0.5, 99.5))
    bright = some[some > _otsu(np.clip(some, low, high))]
    tissue = np.median(bright) if bright.size else high
    return {"low": low.item(), "tissue": float(tissue), "high": high.item(), "zero": float((some == 0).mean())}


def _spread(values: NDArray[Any]) -> NDArray[Any]:
    return values[:: max(1, values.size // VOXELS)]


def _otsu(values: NDArray[np.float64]) -> float:
    """Return the threshold that parts values best in two."""
    counts, edges = np.histogram(values, bins=256)
    below = np.cumsum(counts)
    sums = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + np.argmax(np.nan_to_num(between))])


def has_window(intensity: Sequence[Any]) -> bool:
    """Return whether transforms of the intensities cut out fixed values, so that the absolute ones count."""
    return any(isinstance(transform, ScaleIntensityRanged) for transform in intensity)


def describe_values(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return the fingerprint of each channel's values in the files of training cases.

    Args:
        items: of one data set. Files that cannot be read are left out; the loader tells what is wrong with them.

    Returns:
        For each channel ``image``, the smallest and largest of each level (`levels_of`) of any case, and, where cases
        have labels, ``foreground``, of the labelled voxels: ``mean``, ``sd``, and ``percentiles``, those of
        `PERCENTILES`.
    """
    chosen = [items[i] for i in sorted({round(i) for i in np.linspace(0, len(items) - 1, min(len(items), MOST_CASES))})]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        cases = [case for case in pool.map(_measured, chosen) if case]
    if not cases or len({len(case) for case in cases}) > 1:  # of several numbers of channels, which is refused later
        return []
    return [_summary(channel) for channel in zip(*cases, strict=True)]


def _measured(item: Item) -> list[tuple[dict[str, float], NDArray[np.float32]]]:
    """Return levels and labelled values of each channel; empty if a file cannot be read."""
    try:
        channels = [np.asarray(part) for path in images_of(item) for part in load_volume(path).numpy()]
        label = np.asarray(load_volume(item["label"]).numpy()).max(axis=0) > 0 if "label" in item else None
    except (UnusableFile, OSError):
        return []
    shape = channels[0].shape
    if any(channel.shape != shape or not np.isfinite(channel).all() for channel in channels):
        return []
    inside = label if label is not None and label.shape == shape else np.zeros(shape, dtype=bool)
    return [(levels_of(channel), _spread(channel[inside])) for channel in channels]


def _summary(cases: Sequence[tuple[dict[str, float], NDArray[np.float32]]]) -> dict[str, Any]:
    known = [levels for levels, _ in cases]
    ranges = {name: [_short(min(k[name] for k in known)), _short(max(k[name] for k in known))] for name in known[0]}
    found: dict[str, Any] = {"image": ranges}
    inside = np.concatenate([values for _, values in cases]).astype(np.float64)
    if inside.size:
        percentiles = [_short(value) for value in np.percentile(inside, PERCENTILES)]
        found["foreground"] = {"mean": _short(inside.mean()), "sd": _short(inside.std()), "percentiles": percentiles}
    return found


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def looks_like(levels: Mapping[str, float], known: Mapping[str, Any], *, window: bool) -> str:
    """Return in words how a channel's values differ from those that a model has learnt from; empty if they do not.

    Args:
        levels: of the image, by `levels_of`.
        known: of the same channel, by `describe_values`.
        window: whether the absolute values count (`has_window`). If not, each image is scaled by its own, and only
            values of CT and the zeros around a brain are looked at.
    """
    ranges = known["image"]
    found = (_scale(levels, ranges, _foreground_span(known)) if window else "") or _kind(levels, ranges)
    return found or ("" if window else _zeros(levels, ranges))


def _foreground_span(known: Mapping[str, Any]) -> float:
    """Return the distance of the percentiles 5 and 95 of the labelled voxels, without the gas in a stomach."""
    percentiles = known.get("foreground", {}).get("percentiles", (0.0,) * len(PERCENTILES))
    return float(percentiles[3] - percentiles[1])


def _scale(levels: Mapping[str, float], ranges: Mapping[str, Sequence[float]], foreground: float) -> str:
    low, high = ranges["low"][0], ranges["high"][1]
    lowest, highest = ranges["tissue"]
    margin = max(highest - lowest, foreground, 0.05 * (high - low))
    values = (
        f"its values run from {levels['low']:g} to {levels['high']:g}, those of the training from {low:g} to {high:g}"
    )
    span = levels["high"] - levels["low"]
    if span < 0.02 * (high - low):
        return f"{values}: it looks scaled already, to {'0..1' if levels['low'] >= -0.01 else 'other units'}"
    apart = levels["tissue"] - (lowest + highest) / 2
    if abs(apart) <= (highest - lowest) / 2 + margin:
        return ""
    for shift in (STEP, -STEP):
        if abs(apart - shift) <= (highest - lowest) / 2 + margin and 0.4 <= span / (high - low) <= 2.5:
            added = "stored without its intercept" if shift > 0 else "with its intercept taken away twice"
            return f"{values}: they look shifted by about {shift:+g}, as of CT {added}"
    other = ": it looks like MR or another kind of image, and not like CT in HU" if low < AIR <= levels["low"] else ""
    return (
        f"{values}, and most of what is bright is about {levels['tissue']:g} and not {lowest:g} to {highest:g}{other}"
    )


def _kind(levels: Mapping[str, float], ranges: Mapping[str, Sequence[float]]) -> str:
    if levels["low"] >= AIR > ranges["low"][1]:
        return (
            f"it has no values below {AIR:g}, unlike all images of the training, which were CT in HU: it looks like "
            "MR, like a picture with grey values, cut to a window, or like CT stored without its intercept"
        )
    if levels["low"] < AIR <= ranges["low"][0]:
        return f"it has values below {AIR:g}, as CT in HU; no image of the training had any"
    return ""


def _zeros(levels: Mapping[str, float], ranges: Mapping[str, Sequence[float]]) -> str:
    fewest, most = ranges["zero"]
    if fewest >= 0.1 and levels["zero"] < 0.01:
        return (
            f"hardly a voxel of it is 0, and {fewest:.0%} or more were in the training: what is around the body or "
            "the brain looks not cut away, or the values look scaled already"
        )
    if most <= 0.05 and levels["zero"] > 0.4:
        return (
            f"{levels['zero']:.0%} of it are 0, and {most:.0%} at most were in the training: what is around the body "
            "or the brain looks cut away"
        )
    return ""
