"""Precision of the losses: float32, whatever the network runs in."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 (float64 stays), without MONAI's metadata."""
    return tensor.as_subclass(Tensor).to(torch.promote_types(tensor.dtype, torch.float32))


def no_autocast(tensor: Tensor) -> torch.autocast:
    """Return a context in which autocast is off for the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)
