from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.networks.attention import Attention
from scripts.networks.operations import count_operations


class ReadsItself(nn.Module):
    """Lets 64 tokens of 8 channels attend to each other, whatever the image."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = torch.zeros(1, 64, 8)
        if isinstance(self.attention, nn.MultiheadAttention):
            return self.attention(tokens, tokens, tokens)[0]
        return self.attention(tokens, tokens)


@pytest.mark.parametrize(
    "make", [lambda: Attention(8, num_heads=2), lambda: nn.MultiheadAttention(8, 2, batch_first=True)]
)
def test_operations_of_an_attention_are_those_of_its_products(make) -> None:
    """Four projections of 64 x 8 x 8, and two products of 64 x 64 x 8; PyTorch's fast path is no way round them."""
    network = ReadsItself(make())
    before = torch.backends.mha.get_fastpath_enabled()
    assert count_operations(network, torch.zeros(1)) == 2 * 64 * 8 * 8 * 4 + 2 * 2 * 64 * 64 * 8
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_operations_of_a_convolution_and_a_product() -> None:
    network = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(4 * 27, 5))
    assert count_operations(network, torch.zeros(1, 2, 3, 3, 3)) == 2 * 27 * 4 * 27 + 2 * 4 * 27 * 5


def test_what_is_done_once_for_all_images_is_not_counted() -> None:
    class KeepsProduct(nn.Module):
        kept: torch.Tensor | None = None

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if self.kept is None:
                self.kept = torch.zeros(3, 4) @ torch.zeros(4, 5)
            return self.kept @ image

    assert count_operations(KeepsProduct(), torch.zeros(5, 6)) == 2 * 3 * 5 * 6


def test_a_view_of_a_parameter_may_be_the_input_of_a_module() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.layer = nn.Parameter(torch.zeros(3, 4)), nn.Linear(4, 5)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.layer(self.query[None])

    network = Asks()
    assert count_operations(network, torch.zeros(1)) == 2 * 3 * 4 * 5
    assert all(parameter.requires_grad for parameter in network.parameters())
