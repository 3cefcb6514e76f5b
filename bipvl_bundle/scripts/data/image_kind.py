"""Size and kind of images, and the question whether a model was made for such ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scripts.data.cases import Item, case_of, images_of
from scripts.data.fingerprints import lowest_value
from scripts.data.intensities import AIR, describe_values, levels_of, looks_like
from scripts.data.loading import load_volume
from scripts.data.nifti import UnusableFile, affine_in_mm, read_header

LARGER = 2.0
"""How many times as long as the training's longest an edge may be."""
DATA_SET = "data_set"
"""Key of a case under which its data set is named, of several that are learnt together."""


def describe_images(items: Sequence[Item]) -> dict[str, Any]:
    """Return what a model's file is to know of the images of its training; empty if no header can be read.

    Returns:
        ``largest_mm``, the longest first, second and third edge of any image; ``has_air``, whether there are values of
        CT; ``values``, by data set (empty text where there is one), `describe_values`.
    """
    edges = [found for item in items if (found := edges_mm(item)) is not None]
    if not edges:
        return {}
    lowest = min(lowest_value(images_of(item)[0]) for item in items if edges_mm(item) is not None)
    data_sets = defaultdict(list)
    for item in {case_of(item): item for item in items}.values():  # one that is repeated in an epoch counts once
        data_sets[str(item.get(DATA_SET, ""))].append(item)
    return {
        "largest_mm": [round(float(edge), 1) for edge in np.max(edges, axis=0)],
        "has_air": bool(lowest < AIR),
        "values": {name: describe_values(found) for name, found in data_sets.items()},
    }


def join_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return what describes the images of two trainings, the second of which went on from the first's model.

    Args:
        one: by `describe_images`; empty if the first model does not say.
        other: of the second training, whose kind counts.
    """
    if not one or not other:
        return dict(other or one)
    longest = [max(pair) for pair in zip(one["largest_mm"], other["largest_mm"], strict=True)]
    return {**other, "largest_mm": longest}


def edges_mm(item: Item) -> list[float] | None:
    """Return the edges of a case's first image in mm, the longest first, from its header; None if nibabel has none."""
    try:
        header = read_header(images_of(item)[0])
    except (UnusableFile, FileNotFoundError):  # the loader tells what is wrong with it
        return None
    shape = header.get_data_shape()
    if len(shape) < 3:
        return None
    sizes = np.sqrt((affine_in_mm(header)[:3, :3] ** 2).sum(axis=0)) * np.asarray(shape[:3])
    return sorted((float(size) for size in sizes), reverse=True)


def require_similar_images(
    items: Sequence[Item],
    described: Mapping[str, Any],
    known: Sequence[Mapping[str, Any]] = (),
    *,
    window: bool = False,
) -> None:
    """Raise an error if an image is far larger than those of the training, or the first one is of another kind.

    Args:
        items: the cases; of all but the first the header alone is read.
        described: by `describe_images`; empty if the model does not say.
        known: of its ``values``, those of the data set, with which the message tells what the image looks like.
        window: whether absolute values count, see `looks_like`.

    Raises:
        ValueError: it is; the message says how to go on.
    """
    if not described:
        return
    largest = described["largest_mm"]
    on = "If this is meant, set `other_images` to true (--other_images True)"
    for item in items:
        edges = edges_mm(item)
        if edges and any(edge > LARGER * known for edge, known in zip(edges, largest, strict=True)):
            raise ValueError(
                f"'{case_of(item)}' measures {_mm(edges)}; the largest image of the model's training measured "
                f"{_mm(largest)}. It would take long and find what is not there. Crop it to the region that the model "
                f"knows. {on}"
            )
    if items and edges_mm(items[0]):
        lowest = lowest_value(images_of(items[0])[0])
        air = bool(lowest < AIR)
        if np.isfinite(lowest) and air != described["has_air"]:  # what is not finite is refused by `CheckCased`
            kinds = {
                True: f"has values below {AIR:g}, as CT in HU",
                False: f"has no values below {AIR:g}, unlike CT in HU",
            }
            path = images_of(items[0])[0]
            said = looks_like(levels_of(load_volume(path)[0].numpy()), known[0], window=window) if known else ""
            raise ValueError(
                f"'{case_of(items[0])}' {kinds[air]}; the model was trained on images of the other kind. "
                f"{f'Of {path}: {said}. ' if said else ''}{on}"
            )


def _mm(edges: Sequence[float]) -> str:
    return " x ".join(f"{edge:.0f}" for edge in edges) + " mm"
