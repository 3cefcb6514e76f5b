from __future__ import annotations

import pytest
import torch

from scripts.networks.bifusion import TOKEN_BUDGET
from scripts.networks.token_pooling import pool_tokens, pooled_grid


@pytest.mark.parametrize(
    ("grid", "budget", "expected"),
    [
        ((24, 24, 24), TOKEN_BUDGET, (24, 24, 24)),  # Swin UNETR, stage 1 at 96^3: exact
        ((48, 48, 48), TOKEN_BUDGET, (24, 24, 24)),  # UNet and UNet++, stage 1 at 96^3
        ((32, 32, 32), TOKEN_BUDGET, (16, 16, 32)),  # Swin UNETR, stage 1 at 128^3
        ((4, 2, 2), 15, (2, 2, 2)),
        ((5, 3, 2), 18, (3, 3, 2)),
        ((5, 3, 2), 17, (2, 3, 2)),
        ((7, 1, 1), 1, (1, 1, 1)),
        ((100, 100, 100), None, (100, 100, 100)),
    ],
)
def test_longest_edge_is_halved_until_the_budget_holds(grid, budget, expected):
    assert pooled_grid(grid, budget) == expected


def test_neighbours_are_averaged_in_the_order_of_the_grid():
    # Cells 0 to 7 of a 4 x 1 x 2 grid; pairs along the first axis: (0, 2), (1, 3), (4, 6), (5, 7).
    tokens = torch.arange(8.0).reshape(1, 8, 1)
    assert pool_tokens(tokens, (4, 1, 2), 4).flatten().tolist() == [1, 2, 5, 6]


def test_odd_edge_has_blocks_that_share_a_cell():
    # 3 cells become 2: the means of cells 0 and 1, and of cells 1 and 2.
    tokens = torch.tensor([0.0, 1.0, 5.0]).reshape(1, 3, 1)
    assert pool_tokens(tokens, (3, 1, 1), 2).flatten().tolist() == [0.5, 3]


def test_tokens_within_the_budget_are_handed_on():
    tokens = torch.zeros(1, 8, 1)
    assert pool_tokens(tokens, (2, 2, 2), 8) is tokens
    assert pool_tokens(tokens, (2, 2, 2), None) is tokens


def test_channels_and_samples_do_not_mix():
    tokens = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(0))
    pooled = pool_tokens(tokens, (3, 2, 2), 4)
    assert pooled.shape == (2, 4, 3)
    for b in range(2):
        for c in range(3):
            alone = pool_tokens(tokens[b : b + 1, :, c : c + 1], (3, 2, 2), 4)
            torch.testing.assert_close(pooled[b, :, c], alone[0, :, 0])
