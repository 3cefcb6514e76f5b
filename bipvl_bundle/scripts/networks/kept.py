"""Cache, for evaluation, of what depends on weights alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Kept:
    """Cache of results that depend on weights alone, for evaluation; each is renewed when these weights change.

    In-place changes of a weight count up its version. Changes through ``weight.data`` do not: after them, ``forget``.
    """

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Any, Any]] = {}

    def forget(self) -> None:
        """Empty the cache."""
        self.kept.clear()

    def get(self, name: str, modules: Iterable[nn.Module], compute: Callable[[], T]) -> T:
        """Return the cached result of ``compute`` if weights are unchanged and gradients are off, else compute it.

        Args:
            name: of the result.
            modules: whose weights it depends on.
            compute: makes it.
        """
        if torch.is_grad_enabled():
            return compute()
        key = _state_of([weight for module in modules for weight in module.parameters()])
        known, result = self.kept.get(name, (None, None))
        if known != key:
            result = compute()
            self.kept[name] = (key, result)
        return result


def _state_of(weights: list[nn.Parameter]) -> tuple[Any, ...]:
    versions = tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)
    device = weights[0].device
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    return versions, weights[0].dtype, device, autocast
