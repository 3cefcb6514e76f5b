"""Size and kind of images, and the question whether a model was made for such ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scripts.data.cases import Item, case_of, images_of
from scripts.data.fingerprints import lowest_value
from scripts.data.nifti import UnusableFile, affine_in_mm, read_header

LARGER = 2.0
"""How many times as long as the training's longest an edge may be."""
AIR = -200.0
"""An image with values below is taken for CT in HU."""


def describe_images(items: Sequence[Item]) -> dict[str, Any]:
    """Return ``largest_mm``, the longest first, second and third edge of any image, and ``has_air`` (values of CT).

    Images that nibabel does not know are left out; empty if there is no other.
    """
    edges = [found for item in items if (found := edges_mm(item)) is not None]
    if not edges:
        return {}
    lowest = min(lowest_value(images_of(item)[0]) for item in items if edges_mm(item) is not None)
    return {"largest_mm": [round(float(edge), 1) for edge in np.max(edges, axis=0)], "has_air": bool(lowest < AIR)}


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


def require_similar_images(items: Sequence[Item], described: Mapping[str, Any]) -> None:
    """Raise an error if an image is far larger than those of the training, or the first one is of another kind.

    Args:
        items: the cases; of all but the first the header alone is read.
        described: by `describe_images`; empty if the model does not say.

    Raises:
        ValueError: it is; the message says how to go on.
    """
    if not described:
        return
    largest = described["largest_mm"]
    on = "If this is meant: --other_images True"
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
            raise ValueError(
                f"'{case_of(items[0])}' {kinds[air]}; the model was trained on images of the other kind. {on}"
            )


def _mm(edges: Sequence[float]) -> str:
    return " x ".join(f"{edge:.0f}" for edge in edges) + " mm"
