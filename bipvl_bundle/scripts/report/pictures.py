"""Matplotlib figures of images and label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

_COLOURS = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c",
    "#fabebe", "#008080", "#e6beff", "#9a6324", "#fffac8", "#800000", "#aaffc3",
)  # fmt: skip


def comparison_figure(
    image: NDArray[np.floating],
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer],
    class_names: Sequence[str],
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    window: tuple[float, float] | None = None,
) -> Figure:
    """Draw image, reference and prediction side by side: a coronal and an axial row through the labels, sides marked.

    Args:
        image: H x W x D in RAS orientation
        reference: label map with the values 0 to N, of the same shape
        prediction: the same
        class_names: the N names in label order
        spacing: mm
        window: lowest and highest intensity shown; by default the range of the image

    Raises:
        ValueError: the three arrays differ in shape, or there are more classes than colours.
    """
    if not image.shape == reference.shape == prediction.shape:
        raise ValueError(
            f"Image {image.shape}, reference {reference.shape} and prediction {prediction.shape} differ in shape; "
            "bring them to one grid first."
        )
    if len(class_names) > len(_COLOURS):
        raise ValueError(f"There are colours for {len(_COLOURS)} classes; found {len(class_names)}.")
    low, high = window if window else (float(image.min()), float(image.max()))
    colours = ListedColormap(_COLOURS[: len(class_names)])
    figure = Figure(figsize=(9, 6), layout="constrained", facecolor="white")
    for row, axis in enumerate((1, 2)):
        index = _richest_slice(reference, axis)
        across, up = (side for side in range(3) if side != axis)
        for column, (title, labels) in enumerate(
            [("image", None), ("reference", reference), ("prediction", prediction)]
        ):
            axes = figure.add_subplot(2, 3, 3 * row + column + 1)
            style: dict[str, Any] = {
                "origin": "lower",
                "aspect": spacing[up] / spacing[across],
                "interpolation": "nearest",
            }
            axes.imshow(_seen(image, axis, index), cmap="gray", vmin=low, vmax=high, **style)
            if labels is not None:
                shown = np.ma.masked_equal(_seen(labels, axis, index), 0)
                axes.imshow(shown, cmap=colours, vmin=1, vmax=max(len(class_names), 2), alpha=0.6, **style)
            axes.set_axis_off()
            for place, side in ((0.02, "R"), (0.98, "L")):
                axes.text(place, 0.5, side, color="white", transform=axes.transAxes, ha="center", va="center")
            if row == 0:
                axes.set_title(title)
    handles = [Patch(color=_COLOURS[i], label=name) for i, name in enumerate(class_names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False)
    return figure


def own_window(image: NDArray[Any]) -> tuple[float, float]:
    """Return the first and the 99th percentile of what lies above 0, as air does not; of all if nothing does."""
    values = image[image > 0]
    low, high = np.percentile(values if values.size else image, (1, 99))
    return float(low), float(max(high, low + np.finfo(np.float32).eps))


def _richest_slice(labels: NDArray[np.integer], axis: int) -> int:
    """Return the slice with most of most classes: the sum of the logarithms of their voxels."""
    slices = np.moveaxis(labels, axis, 0).astype(np.int64)
    return max(range(len(slices)), key=lambda i: np.log1p(np.bincount(slices[i].ravel())[1:]).sum())


def _seen(volume: NDArray, axis: int, index: int) -> NDArray:
    """Orient a slice as radiologists view it, the patient's right on the left."""
    return np.take(volume, index, axis=axis).T[:, ::-1]
