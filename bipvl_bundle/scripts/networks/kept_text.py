"""Cache of the text states that do not depend on the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class KeptText:
    """Cache of text-encoder states for evaluation, renewed when the weights that made them change.

    In-place changes of a weight count up its version. Changes through ``weight.data`` do not: after them, ``forget``.
    """

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Any, Tensor]] = {}

    def forget(self) -> None:
        """Empty the cache."""
        self.kept.clear()

    def get(self, name: str, modules: Iterable[nn.Module], compute: Callable[[], Tensor]) -> Tensor:
        """Return the cached result of ``compute`` if weights are unchanged and gradients are off, else compute it.

        Args:
            name: of the result.
            modules: whose weights it depends on.
            compute: makes it.
        """
        if torch.is_grad_enabled():
            return compute()
        key = _state_of([weight for module in modules for weight in module.parameters()])
        if name not in self.kept or self.kept[name][0] != key:
            self.kept[name] = (key, compute())
        return self.kept[name][1]


def _state_of(weights: list[nn.Parameter]) -> tuple[Any, ...]:
    versions = tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)
    device = weights[0].device
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    return versions, weights[0].dtype, device, autocast
