"""Checks and label maps of the network's logits."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import AsDiscrete, MapTransform
from torch import Tensor

from scripts.data.cases import loaded_from

__all__ = ["PROBABILITIES", "ToLabelsd", "are_probabilities", "check_logits", "label_type"]

PROBABILITIES = "probabilities"
"""Set in the metadata of a prediction that is one of probabilities, not of logits."""


class ToLabelsd(MapTransform):
    """Transform from logits to labels on the same grid: arg-max for classes, a threshold of one half for regions.

    A prediction that is marked as one of probabilities passes: it is a sample that a score is made of.

    Args:
        keys: the logits, C x H x W x D; they become 1 x H x W x D where `softmax`, else they keep their shape.
        softmax: whether the channels are classes that exclude each other, the background first, or regions.

    Raises:
        ValueError: logits are NaN or infinite; the message names the case.
    """

    def __init__(self, keys: KeysCollection, *, softmax: bool = True) -> None:
        super().__init__(keys)
        self.discrete = AsDiscrete(argmax=softmax, threshold=None if softmax else 0.0)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.keys:
            if not are_probabilities(case[key]):
                check_logits(case[key], loaded_from(case[key], key))
                case[key] = self.discrete(case[key])
        return case


def are_probabilities(prediction: Any) -> bool:
    """Return whether a prediction is marked as a sample of probabilities."""
    return bool(getattr(prediction, "meta", {}).get(PROBABILITIES))


def check_logits(logits: Tensor, name: str) -> None:
    """Raise an error at logits that are NaN or infinite, which arg-max would turn into background.

    Args:
        logits: C x H x W x D; looked at channel by channel.
        name: of the case, for the message.

    Raises:
        ValueError: some are NaN or infinite.
    """
    bad = [channel for channel, plane in enumerate(logits) if not plane.isfinite().all()]
    if bad:
        count = sum(int((~logits[channel].isfinite()).sum()) for channel in bad)
        raise ValueError(
            f"{name}: expected finite logits of the network, found {count} that are NaN or infinite (channels "
            f"{', '.join(map(str, bad[:10]))}); the weights are damaged or their training diverged, or mixed precision "
            "overflowed: try amp False"
        )


def label_type(num_channels: int) -> torch.dtype:
    """Return the smallest integer type for a number of classes, the background included."""
    return next(kind for kind in (torch.uint8, torch.int16, torch.int32) if num_channels - 1 <= torch.iinfo(kind).max)
