"""Figure of one case, as Figure 4 of the paper: image, reference and predictions, in three planes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from scipy import ndimage

from scripts.report.colours import class_colours

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
BOXES = 3  # per slice


def case_figure(
    image: NDArray[np.floating],
    reference: NDArray[np.integer],
    predictions: Mapping[str, NDArray[np.integer]],
    class_names: Sequence[str],
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Figure:
    """Draw a row per plane and a column each for image, reference and every prediction.

    The planes go through the voxel that is wrong most densely (see `focus`). Boxes lie around the
    largest patches of a slice where a prediction is not the reference.

    Args:
        image: H x W x D in RAS orientation; shown between its 1st and 99th percentile
        reference: label map with the values 0 to N, of the same shape
        predictions: label maps by the names of their models, of the same shape
        class_names: the N names in label order
        spacing: mm

    Raises:
        ValueError: the arrays differ in shape.
    """
    shapes = {array.shape for array in (image, reference, *predictions.values())}
    if len(shapes) > 1:
        raise ValueError(f"Image, reference and predictions differ in shape: {shapes}; bring them to one grid first.")
    colours = class_colours(len(class_names))
    columns: dict[str, NDArray[np.integer] | None] = {"image": None, "reference": reference, **predictions}
    figure = Figure(figsize=(2.4 * len(columns), 7.4), layout="constrained", facecolor="white")
    axes = figure.subplots(len(PLANES), len(columns), squeeze=False)
    low, high = np.percentile(image, (1, 99))
    centre = focus(reference, list(predictions.values()))
    for row, (plane, axis) in zip(axes, PLANES.items(), strict=True):
        across, up = (side for side in range(3) if side != axis)
        style = {"origin": "lower", "interpolation": "nearest", "aspect": spacing[up] / spacing[across]}
        for place, (title, labels) in zip(row, columns.items(), strict=True):
            place.imshow(seen(image, axis, centre[axis]), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), **style)
            if labels is not None:
                _overlay(place, seen(labels, axis, centre[axis]), colours, style)
            if title in predictions and labels is not None:
                wrong = seen(labels, axis, centre[axis]) != seen(reference, axis, centre[axis])
                for x, y, width, height in boxes(wrong):
                    place.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="white", linewidth=1.4))
            place.set_xticks([])
            place.set_yticks([])
            if axis == PLANES["sagittal"]:
                place.set_title(title, fontsize=10)
        row[0].set_ylabel(f"{plane}, slice {centre[axis]}", fontsize=9)
    handles = [Patch(color=colour, label=name) for colour, name in zip(colours, class_names, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False, fontsize=9)
    return figure


def seen(volume: NDArray, axis: int, index: int) -> NDArray:
    """Return a slice as radiologists view it, the patient's right on the left."""
    slice_ = np.take(volume, index, axis=axis).T
    return slice_ if axis == PLANES["sagittal"] else slice_[:, ::-1]


def focus(reference: NDArray[np.integer], predictions: Sequence[NDArray[np.integer]]) -> tuple[int, int, int]:
    """Return the voxel to look at: the wrong one with most wrong ones around it, else the middle of the labels.

    Density is the share of wrong voxels, over the predictions, within 9 x 9 x 9.
    """
    wrong = np.zeros(reference.shape, dtype=np.float32)
    for prediction in predictions:
        wrong += prediction != reference
    density = ndimage.uniform_filter(wrong, size=9, mode="constant") * (wrong > 0)
    if density.max() > 0:
        place = np.unravel_index(int(density.argmax()), density.shape)
    else:
        voxels = np.argwhere(reference > 0)
        place = tuple(np.median(voxels, axis=0)) if len(voxels) else tuple(size // 2 for size in reference.shape)
    x, y, z = (int(index) for index in place)
    return x, y, z


def boxes(wrong: NDArray[np.bool_]) -> Iterator[tuple[float, float, float, float]]:
    """Yield x, y, width and height of boxes around the largest patches of wrong pixels, with a margin of one."""
    patches, _ = ndimage.label(ndimage.binary_dilation(wrong, iterations=1))
    sizes = np.bincount(patches.ravel())[1:]
    found = ndimage.find_objects(patches)
    for number in np.argsort(-sizes, kind="stable")[:BOXES]:
        rows, columns = found[number]
        yield columns.start - 0.5, rows.start - 0.5, columns.stop - columns.start, rows.stop - rows.start


def _overlay(axes: Axes, labels: NDArray[np.integer], colours: Sequence[str], style: Mapping) -> None:
    shown = np.ma.masked_equal(labels, 0)
    palette = ListedColormap([*colours, "#000000"][: max(len(colours), 2)])
    axes.imshow(shown, cmap=palette, vmin=1, vmax=max(len(colours), 2), alpha=0.55, **style)
