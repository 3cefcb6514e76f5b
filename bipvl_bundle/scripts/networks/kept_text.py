"""What evaluation keeps of the text from one image to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class KeptText:
    """States of a text encoder that no image has touched, kept until the weights that made them change.

    In-place changes of a weight count up its version. Changes through ``weight.data`` do not: after them, ``forget``.
    """

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Any, Tensor]] = {}

    def forget(self) -> None:
        self.kept.clear()

    def get(self, name: str, modules: Iterable[nn.Module], compute: Callable[[], Tensor]) -> Tensor:
        """What ``compute`` gives, or has given before with the same weights; only where no gradient is asked for.

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
