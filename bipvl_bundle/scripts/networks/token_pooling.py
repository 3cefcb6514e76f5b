"""Pooling of image tokens that serve as keys and values of attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def pooled_grid(grid: Sequence[int], budget: int | None) -> tuple[int, int, int]:
    """Return the grid after halving its longest edge (the first of equals) until it fits a budget.

    Args:
        grid: cells along each of the three axes.
        budget: cells that are allowed; None allows any number.
    """
    edges = list(grid)
    while budget is not None and math.prod(edges) > budget:
        longest = edges.index(max(edges))
        edges[longest] = -(-edges[longest] // 2)
    height, width, depth = edges
    return height, width, depth


def pool_tokens(tokens: Tensor, grid: Sequence[int], budget: int | None) -> Tensor:
    """Average neighbouring tokens of a grid until at most ``budget`` are left.

    Along an edge of n cells that becomes m, the i-th pooled token averages the cells from floor(i n / m) up to
    ceil((i + 1) n / m): blocks of equal size where m divides n, blocks that share a cell where it does not.

    Args:
        tokens: B x S x C, in the order of the grid
        grid: cells along each of the three axes; S is their product.
        budget: see ``pooled_grid``.

    Returns:
        B x S' x C with S' <= budget; ``tokens`` itself where they are within the budget.
    """
    smaller = pooled_grid(grid, budget)
    if smaller == tuple(grid):
        return tokens
    height, width, depth = grid
    features = rearrange(tokens, "b (h w d) c -> b c h w d", h=height, w=width, d=depth)
    return rearrange(F.adaptive_avg_pool3d(features, smaller), "b c h w d -> b (h w d) c")
