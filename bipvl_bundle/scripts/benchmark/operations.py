"""Floating-point operations of a network, counted by PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from scripts.benchmark.setup import Setup
from scripts.networks.bipvl_seg import BiPVLSeg


@torch.no_grad()
def count_operations(setup: Setup, network: nn.Module) -> int:
    """Count the floating-point operations of one forward in evaluation, with the first text stage cached.

    PyTorch's FlopCounterMode counts two for each multiplication of matrix products, convolutions and attention;
    not norms, activations, softmax, dropout, interpolation, nor moving data.
    """
    image, _ = setup.patch()
    network.eval()
    if isinstance(network, BiPVLSeg):
        network.read_alone()
    # The one attention that PyTorch's counter has no formula for.
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={attention: _attention_operations}) as counter:
        network(image)
    return counter.get_total_flops()


def _attention_operations(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)
