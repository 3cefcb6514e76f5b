"""Checks of the image size that an encoder-decoder needs, with errors that say what to set."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def check_image(image: Tensor, name: str, in_channels: int, divisors: Sequence[int]) -> None:
    """Raise an error unless each edge of a batch of images can be divided by the network's strides.

    Args:
        image: B x C x H x W x D.
        name: of the network, for the message.
        in_channels: C.
        divisors: of which each of the three edges must be a multiple.

    Raises:
        ValueError: the image has another number of dimensions or channels, or an edge that cannot be divided.
    """
    if image.ndim != 5:
        raise ValueError(
            f"{name} expects a batch of 3D images, B x C x H x W x D; found shape {tuple(image.shape)}. "
            "2D slices and 4D series must be split into volumes with a channel axis first."
        )
    if image.shape[1] != in_channels:
        raise ValueError(
            f"{name} was built for {in_channels} image channel(s); the image has {image.shape[1]} "
            f"(shape {tuple(image.shape)}). Set `in_channels` to the number of channels of the data set."
        )
    edges = [(edge, divisor) for edge, divisor in zip(image.shape[2:], divisors, strict=True)]
    if any(edge % divisor for edge, divisor in edges):
        below = [max(edge // divisor, 1) * divisor for edge, divisor in edges]
        above = [-(-edge // divisor) * divisor for edge, divisor in edges]
        multiples = str(divisors[0]) if len(set(divisors)) == 1 else str(tuple(divisors))
        raise ValueError(
            f"{name} can only divide volumes whose edges are multiples of {multiples}; found "
            f"{tuple(image.shape[2:])}. Set `roi_size` to {below} or {above}."
        )


def check_cells(image: Tensor, name: str, divisors: Sequence[int]) -> None:
    """Raise an error if a norm of the last stage would take its statistics over a single cell.

    Instance norm always does, batch norm in training.

    Raises:
        ValueError: no edge of the image (B x C x H x W x D) is larger than its divisor.
    """
    if all(edge <= divisor for edge, divisor in zip(image.shape[2:], divisors, strict=True)):
        raise ValueError(
            f"An ROI of {tuple(image.shape[2:])} leaves {name} a single cell at its last stage, "
            f"over which its norm has no statistics. Set at least one edge of `roi_size` to {2 * max(divisors)}."
        )
