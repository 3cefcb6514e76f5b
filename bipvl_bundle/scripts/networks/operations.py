"""Counting the floating-point operations of a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


@torch.no_grad()
def count_operations(network: nn.Module, image: Tensor) -> int:
    """Count the floating-point operations of a forward in evaluation, without what is done once for all images.

    PyTorch's FlopCounterMode counts two for each multiplication of matrix products, convolutions and attention;
    not norms, activations, softmax, dropout, interpolation, nor moving data. A forward before it lets the network keep
    what no image changes, such as words that are read alone.

    Args:
        network: left in evaluation.
        image: a batch that it can segment, B x C x H x W x D, on its device.
    """
    network.eval()
    # The one attention that PyTorch's counter has no formula for.
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with _without_fast_path(), _without_gradients(network):
        network(image)
        with FlopCounterMode(display=False, custom_mapping={attention: _attention_operations}) as counter:
            network(image)
    return counter.get_total_flops()


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Let `nn.MultiheadAttention` compute by the operations that are counted, and not by one that is not."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _without_gradients(network: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient: PyTorch's counter stumbles over views of one as inputs of a module."""
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learnt:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)


def _attention_operations(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)
