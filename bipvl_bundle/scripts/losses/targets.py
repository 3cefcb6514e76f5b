"""Targets of the losses: check against the logits, relabelling for the classes asked for, classes present."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scripts.networks.outputs import BiPVLOutput


def check_target(logits: Tensor, target: Tensor, softmax: bool = True) -> None:
    """Raise an error unless the target fits the logits.

    Args:
        logits: B x C x H x W x D.
        target: labels 0..C-1, background 0, where classes exclude each other (B x 1 x H x W x D); one
            binary mask per class where regions overlap (B x C x H x W x D).
        softmax: which of the two.

    Raises:
        ValueError: another shape, fewer than two channels for exclusive classes, or a value that is not one
            of the labels; the message names shapes or values.
    """
    _check(target, tuple(logits.shape), softmax)


def _check(target: Tensor, shape: tuple[int, ...], softmax: bool) -> None:
    batch, channels = shape[:2]
    if softmax and channels < 2:
        raise ValueError(
            "Exclusive classes need at least 2 output channels, background first; the logits have "
            f"{channels}. Add the background, or set `softmax` to false for one binary mask per class."
        )
    expected = (batch, 1 if softmax else channels, *shape[2:])
    if tuple(target.shape) != expected:
        kind = "one label map of exclusive classes" if softmax else "one binary mask per class"
        raise ValueError(
            f"The target must be {kind} of shape {expected} for logits of shape {shape}, but "
            f"is {tuple(target.shape)}. Crop image and label alike, and check `softmax` ({softmax})."
        )
    target = target.as_subclass(Tensor)
    highest = channels - 1 if softmax else 1
    wrong = (target < 0) | (target > highest)
    if target.is_floating_point():
        wrong |= target != target.round()  # True for NaN as well
    if wrong.any():
        values = torch.unique(target[wrong])[:8].tolist()
        known = f"integers from 0 to {highest} for {channels} output channels" if softmax else "0 or 1"
        raise ValueError(
            f"The target holds the values {values}; it must hold {known}. Map the labels in the data set's "
            "transforms, resample them with nearest neighbours, or correct the number of classes."
        )


def asked_target(output: BiPVLOutput, target: Tensor, softmax: bool = True) -> Tensor:
    """Relabel the reference for the classes that a step asks for, in their order; all others become background.

    Args:
        output: of the network; says what was asked for.
        target: as ``check_target`` accepts it for all classes of the data set.
        softmax: whether classes exclude each other.

    Returns:
        labels 0..N (B x 1 x H x W x D), or one binary mask per class asked for (B x N x H x W x D)

    Raises:
        ValueError: the target does not fit the data set's classes.
    """
    question = output.question
    if question is None:
        return target
    channels = question.num_classes + int(softmax)
    _check(target, (len(output.logits), channels, *output.logits.shape[2:]), softmax)
    target = target.as_subclass(Tensor)
    if question.mirrored:
        target = target.flip(2)
    if not softmax:
        return target[:, list(question.classes)]
    return renumbered(target, question.classes, channels)


def renumbered(target: Tensor, classes: Sequence[int], channels: int) -> Tensor:
    """Number some classes of a label map 1, 2, ... in their order; all others become background.

    Args:
        target: labels 0..C-1.
        classes: rows of these classes, label 1 being row 0.
        channels: C.
    """
    numbers = [0] * channels
    for number, row in enumerate(classes, start=1):
        numbers[row + 1] = number
    return torch.tensor(numbers, device=target.device, dtype=target.dtype)[target.long()]


def present_classes(target: Tensor, channels: int, softmax: bool = True) -> Tensor:
    """Return which foreground classes occur in each sample, as a mask B x N.

    Args:
        target: as ``check_target`` accepts it.
        channels: C; N is C - 1 for exclusive classes, else C.
        softmax: whether classes exclude each other.
    """
    target = target.as_subclass(Tensor)
    if not softmax:
        return target.flatten(2).ne(0).any(dim=-1)
    seen = torch.zeros(target.shape[0], channels, dtype=torch.bool, device=target.device)
    return seen.scatter_(1, target.flatten(1).long(), True)[:, 1:]
