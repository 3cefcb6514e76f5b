"""Memory that the segmentation of a volume will take, and the refusal of one that the machine cannot hold."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from scripts.data.memory import require_memory
from scripts.messages.phrases import by, some

__all__ = ["require_room"]

NUMBER = 4
"""Bytes of a logit, in single precision, in which windows are put together."""


def require_room(
    image: Tensor, channels: int, *, looks: int = 1, roi_size: Sequence[int] = (), windows: int = 1
) -> None:
    """Raise an error, before the first window, if the machine cannot hold the logits of an image.

    Args:
        image: B x in_channels x H x W x D, on the network's grid; its metadata name the file.
        channels: of the logits.
        looks: how many times it is looked at; from two on there are a sum of probabilities and those of one look too.
        roi_size: of a window.
        windows: how many are in the network at once.

    Raises:
        ValueError: it cannot.
    """
    voxels = prod(image.shape[2:])
    whole = image.shape[0] * channels * voxels
    weights = voxels  # of the windows at each voxel
    in_network = 2 * windows * channels * prod(roi_size)
    size = NUMBER * (image.numel() + whole * (3 if looks > 1 else 1) + weights + in_network)
    summed = f", and the probabilities of {looks} looks" if looks > 1 else ""
    require_memory(
        size,
        f"{_file_of(image)}: {channels} logits for each of its {by(image.shape[2:])} voxels{summed}",
        f"Ask for fewer classes (classes), {'leave out mirror_axes and ensemble, ' if looks > 1 else ''}crop the "
        "image, or use larger voxels (spacing) in the training.",
    )


def _file_of(image: Any) -> str:
    names = getattr(image, "meta", {}).get("filename_or_obj", "the image")
    return some(names) if isinstance(names, list | tuple) else str(names)
