"""Figures of a model's words: t-SNE of the sentences, similarity matrices, maps of attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scripts.report.colours import class_colours

Array = NDArray[np.floating]
MARKERS = "osD^vP*X<>"


def tsne(states: Array, seed: int = 0) -> Array:
    """Return the states of S sentences in two dimensions, by t-SNE of scikit-learn.  # S x 2

    The perplexity is 30, or as much as a third of the sentences allows.

    Raises:
        ValueError: fewer than 4 sentences, or all have one state.
    """
    from sklearn.manifold import TSNE  # takes a second

    if len(states) < 4:
        raise ValueError(f"t-SNE needs at least 4 sentences; found {len(states)}.")
    if not np.isfinite(states).all() or np.allclose(states, states[0]):
        raise ValueError("All sentences have one state, or states are not finite: there is nothing to draw.")
    perplexity = min(30.0, (len(states) - 1) / 3)
    # Exact: the default's tree ends the process where points coincide.
    return TSNE(perplexity=perplexity, init="pca", method="exact", random_state=seed).fit_transform(states)


def sentences_figure(states: Mapping[str, Array], class_names: Sequence[str], concepts: Sequence[str]) -> Figure:
    """Draw Figure 1b: t-SNE of N * K sentences, a row per training state, coloured by concept and by class.

    Args:
        states: by "before training" and "after training", class by class.  # N * K x D
        class_names: N names
        concepts: K names
    """
    figure = Figure(figsize=(10, 4.2 * len(states)), layout="constrained", facecolor="white")
    panels = figure.subplots(len(states), 2, squeeze=False)
    groups = {
        "concept": (concepts, np.tile(np.arange(len(concepts)), len(class_names))),
        "class": (class_names, np.repeat(np.arange(len(class_names)), len(concepts))),
    }
    for row, (when, values) in zip(panels, states.items(), strict=True):
        points = tsne(values)
        for axes, (kind, (names, numbers)) in zip(row, groups.items(), strict=True):
            for number, (name, colour) in enumerate(zip(names, class_colours(len(names)), strict=True)):
                here = points[numbers == number]
                axes.scatter(*here.T, color=colour, marker=MARKERS[number % len(MARKERS)], s=36, label=name)
            axes.set_title(f"{when}, by {kind}", fontsize=10)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def similarity_figure(matrices: Array, class_names: Sequence[str], concepts: Sequence[str]) -> Figure:
    """Draw Figure 2d: the cosines of image (rows) and text (columns), global and for each concept.

    Args:
        matrices: the global one first.  # (1 + K) x N x N
        class_names: N names
        concepts: K names
    """
    titles = ["global", *concepts]
    across = min(4, len(titles))
    down = -(-len(titles) // across)
    figure = Figure(figsize=(2.9 * across + 1.2, 2.9 * down + 0.8), layout="constrained", facecolor="white")
    panels = figure.subplots(down, across, squeeze=False)
    for number, axes in enumerate(panels.flat):
        if number >= len(titles):
            axes.set_axis_off()
            continue
        drawn = axes.imshow(matrices[number], cmap="cividis", vmin=-1, vmax=1)
        axes.set_title(titles[number], fontsize=10)
        axes.set_xticks(range(len(class_names)), class_names, rotation=90, fontsize=7)
        first = number % across == 0
        axes.set_yticks(range(len(class_names)), class_names if first else [], fontsize=7)
        if len(class_names) <= 8:
            for (i, j), value in np.ndenumerate(matrices[number]):
                axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=6, color=_ink(value))
    figure.colorbar(drawn, ax=panels, shrink=0.6, label="cosine")
    return figure


def attention_figure(
    image: Array,
    maps: Array,
    masks: Array,
    class_names: Sequence[str],
    concepts: Sequence[str],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Figure:
    """Draw where the sentences of each class are looked at: a row per class, a column per concept, axial slices.

    Each map is divided by its mean, so that 1 is what a map that says nothing has everywhere. A row shows the slice in
    which its class is largest, with its outline.

    Args:
        image: H x W x D in RAS orientation
        maps: N * K, class by class; they cover the image.  # N * K x h x w x d
        masks: N x H x W x D
        class_names: N names
        concepts: K names
        spacing: of the image, in mm
    """
    relative = np.log2(np.clip(maps / maps.mean(axis=(1, 2, 3), keepdims=True), 1e-3, None))
    spread = max(float(np.abs(relative).max()), 0.05)
    low, high = np.percentile(image, (1, 99))
    width, height = image.shape[0] * spacing[0], image.shape[1] * spacing[1]
    size = 1.2 * np.array([len(concepts), len(class_names) * height / width]) + (2.6, 0.8)
    figure = Figure(figsize=tuple(size), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for i, mask in enumerate(masks):
        depth = int(mask.sum(axis=(0, 1)).argmax()) if mask.any() else image.shape[2] // 2
        for k in range(len(concepts)):
            x, y = k * width, -i * height
            place: dict[str, Any] = {"extent": (x, x + width, y - height, y), "origin": "lower"}
            shown = relative[i * len(concepts) + k]
            axes.imshow(_axial(image, depth), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), **place)
            cells = _axial(shown, depth * shown.shape[2] // image.shape[2])
            style: dict[str, Any] = {"cmap": "PuOr_r", "vmin": -spread, "vmax": spread, "interpolation": "bilinear"}
            drawn = axes.imshow(cells, alpha=0.6, **style, **place)
            outline = _axial(mask, depth)
            if outline.any() and not outline.all():
                axes.contour(outline, levels=[0.5], colors="black", linewidths=1, extent=place["extent"])
    axes.set_xlim(0, len(concepts) * width)
    axes.set_ylim(-len(class_names) * height, 0)
    axes.set_xticks([(k + 0.5) * width for k in range(len(concepts))], concepts, fontsize=8)
    axes.set_yticks([-(i + 0.5) * height for i in range(len(class_names))], class_names, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.5, label="weight, as a multiple of its mean")
    ticks = [-spread, 0, spread]
    bar.set_ticks(ticks, labels=[f"{2**tick:.2f}" for tick in ticks])
    return figure


def _axial(volume: Array, depth: int) -> Array:
    return volume[:, :, depth].T[:, ::-1].astype(float)


def _ink(value: float) -> str:
    return "black" if value > 0.2 else "white"
