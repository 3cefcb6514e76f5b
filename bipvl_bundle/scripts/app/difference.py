"""What changes between two segmentations of one volume: table and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from scripts.app.segmenter import Segmented
from scripts.report.colours import class_colours

Picture = NDArray[np.uint8]
PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
HEAD = ["class", "before (ml)", "after (ml)", "voxels changed"]


def class_names(before: Segmented, after: Segmented) -> list[str]:
    """Return the classes of both, those of the first segmentation first."""
    return list(dict.fromkeys([*before.classes, *after.classes]))


def numbered(
    segmented: Segmented, names: Sequence[str], labels: NDArray[np.integer] | None = None
) -> NDArray[np.uint16]:
    """Return a label map, or a part of it, in the numbers of a common list of classes."""
    numbers = np.array([0, *(names.index(name) + 1 for name in segmented.classes)], dtype=np.uint16)
    return numbers[segmented.labels if labels is None else labels]


def changes(before: Segmented, after: Segmented) -> list[list[str]]:
    """Return a row per class: its volumes, and the voxels that are in one of its two masks alone."""
    names = class_names(before, after)
    first, second = numbered(before, names), numbered(after, names)
    rows = []
    for number, name in enumerate(names, start=1):
        old, new = first == number, second == number
        sizes = [
            f"{mask.sum() * one.voxel_ml:.2f}" if name in one.classes else "not asked for"
            for mask, one in ((old, before), (new, after))
        ]
        rows.append([name, *sizes, str(int((old != new).sum()))])
    return rows


def changed_voxels(before: Segmented, after: Segmented) -> int:
    """Return how many voxels are of another class."""
    names = class_names(before, after)
    return int((numbered(before, names) != numbered(after, names)).sum())


def slices(before: Segmented, after: Segmented, plane: str, index: int, opacity: float = 0.5) -> list[Picture]:
    """Return a slice with the mask of before, with that of after, and with the voxels that changed.

    Shapes: three times height x width x 3, as radiologists view it, the patient's right on the left.
    """
    names = class_names(before, after)
    axis = PLANES[plane]
    index = int(np.clip(index, 0, before.image.shape[axis] - 1))
    grey = _grey(np.take(before.image, index, axis), before.image)
    first, second = (numbered(one, names, np.take(one.labels, index, axis)) for one in (before, after))
    colours = np.array([[0, 0, 0], *map(_rgb, class_colours(len(names)))], dtype=np.float32)
    changed = np.where(first != second, 1, 0)
    red = np.array([[0, 0, 0], _rgb("#D55E00")], dtype=np.float32)
    spacing = np.delete(before.spacing, axis)
    layers = [(first, colours, opacity), (second, colours, opacity), (changed, red, 0.9)]
    return [_seen(_overlaid(grey, labels, palette, alpha), spacing, axis) for labels, palette, alpha in layers]


def legend_html(names: Sequence[str]) -> str:
    """Return the classes with their colours as HTML; the names, which a visitor types, are escaped."""
    swatch = "display:inline-block;width:1em;height:1em;border:1px solid #333;vertical-align:middle;background:"
    entries = (
        f'<span style="white-space:nowrap"><span style="{swatch}{colour}"></span> {escape(name)}</span>'
        for name, colour in zip(names, class_colours(len(names)), strict=True)
    )
    return "&emsp;".join(entries)


def most_changed(before: Segmented, after: Segmented, plane: str) -> int:
    """Return the slice in which most voxels changed; if none did, that with most labelled ones."""
    names = class_names(before, after)
    first, second = numbered(before, names), numbered(after, names)
    others = tuple(axis for axis in range(3) if axis != PLANES[plane])
    counts = (first != second).sum(axis=others)
    return int((counts if counts.any() else (first > 0).sum(axis=others)).argmax())


def _grey(slice_: NDArray, volume: NDArray) -> NDArray[np.float32]:
    low, high = np.percentile(volume[::4, ::4, ::4], (1, 99))
    scaled = np.clip((slice_ - low) / max(high - low, 1e-6), 0, 1) * 255
    return np.repeat(scaled[..., None], 3, axis=-1).astype(np.float32)


def _overlaid(grey: NDArray, labels: NDArray, colours: NDArray, opacity: float) -> NDArray[np.float32]:
    alpha = (labels > 0)[..., None] * opacity
    return grey * (1 - alpha) + colours[labels] * alpha


def _seen(picture: NDArray, spacing: NDArray, axis: int) -> Picture:
    """Orient a slice, and repeat pixels until they are about square and the picture is large enough to see."""
    turned = np.swapaxes(picture, 0, 1)[::-1]
    turned = turned if axis == PLANES["sagittal"] else turned[:, ::-1]
    millimetres = np.array([turned.shape[0] * spacing[1], turned.shape[1] * spacing[0]])
    scale = 400 / millimetres.max()
    rows, columns = (np.maximum(1, (millimetres * scale).round())).astype(int)
    up = np.minimum((np.arange(rows) + 0.5) * turned.shape[0] / rows, turned.shape[0] - 1).astype(int)
    across = np.minimum((np.arange(columns) + 0.5) * turned.shape[1] / columns, turned.shape[1] - 1).astype(int)
    return turned[up][:, across].round().astype(np.uint8)


def _rgb(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
