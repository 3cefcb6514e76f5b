"""The module inside PyTorch's wrappers for several devices."""

from __future__ import annotations

from typing import Any

from torch import nn


def unwrap(item: Any) -> Any:
    """Return the module inside DistributedDataParallel or DataParallel, or the argument itself."""
    wrappers = nn.parallel.DistributedDataParallel, nn.DataParallel
    return item.module if isinstance(item, wrappers) else item
