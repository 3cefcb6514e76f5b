"""Count of the kernels that a task starts, and of the times that it makes the host wait for the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.benchmark.timing import Stopwatch, Task

WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal")
"""Operators whose result the host needs before it goes on, such as that of ``.item()``."""
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_")
WITHOUT_WORK = ("aten::detach", "aten::alias", "aten::empty", "aten::empty_like", "aten::empty_strided")


class Kernels(NamedTuple):
    """Operators that do work on the device, and those of them that the host waits for."""

    started: int
    waited_for: int


def count_kernels(task: Task) -> Kernels:
    """Count the operators that one run of a task calls, backward pass and optimiser included.

    An operator of PyTorch that returns new values, and not a view of old ones, is one kernel or a few. On a GPU each
    costs some microseconds of the host whatever its size, so that their number bounds the time of small batches from
    below. On a CPU attention with dropout, and dropout itself, are several operators; on a GPU each is one.
    """
    with _Counter() as counter:
        task(Stopwatch())
    return Kernels(counter.started, counter.waited_for)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.started = self.waited_for = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, schema = func._schema.name, func._schema
        is_view = any(value.alias_info and not value.alias_info.is_write for value in schema.returns)
        self.started += name.startswith("aten::") and not is_view and name not in WITHOUT_WORK
        self.waited_for += name in WAITING or (name in INDEXING and _is_mask(args[1]))
        return func(*args, **(kwargs or {}))


def _is_mask(indices: Any) -> bool:
    """Whether a tensor is indexed by truth values, the number of which the host has to know."""
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
