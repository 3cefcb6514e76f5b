"""Bidirectional attention: voxels and a small semantic map attend to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from einops import rearrange
from monai.networks.blocks import ChannelSELayer
from monai.networks.layers import get_act_layer
from torch import Tensor, nn

Kernel = Sequence[int]

EXPANSION = 4


class BidirectionalAttention(nn.Module):
    """B-MHA: one matrix of scores between voxels and map, read along both of its axes.

    S = Q_f Q_m^T / sqrt(e), with queries and values of features f and map m and no keys; features become
    softmax over the map of S times V_m, the map softmax over the voxels of S^T times V_f. Features with f + A_f (a 1^3
    convolution of f where channels change) pass an ``InvertedResidual``; the map becomes m + A_m.

    The cost is linear in the voxels. S is never held: each direction computes it by itself.

    Shapes: features B x C x H x W x D, map B x C_m x M; the results B x out_channels x H x W x D and B x C_m x M.

    Args:
        channels: C.
        out_channels: of the features that come out, and of queries and values together.
        map_channels: C_m.
        num_heads: must divide out_channels.
        kernel: three edges, of the depthwise convolutions.
        act: activation, a name that MONAI knows.
        returns_map: False where nothing reads the map any more; it is then returned as it came.

    Source:
        Gao et al., "A Data-scalable Transformer for Medical Image Segmentation" (2022).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        map_channels: int,
        *,
        num_heads: int,
        kernel: Kernel,
        act: str,
        returns_map: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.InstanceNorm3d(channels)
        self.map_norm = nn.InstanceNorm1d(map_channels)
        self.query_value = separable(channels, 2 * out_channels, kernel)
        self.map_query_value = nn.Conv1d(map_channels, 2 * out_channels, 1, bias=False)
        self.project = separable(out_channels, out_channels, kernel)
        self.map_project = nn.Conv1d(out_channels, map_channels, 1, bias=False) if returns_map else None
        self.shortcut = nn.Identity() if channels == out_channels else unit(channels, out_channels, (1, 1, 1), act)
        self.mix = InvertedResidual(out_channels, kernel, act)

    def forward(self, features: Tensor, semantic_map: Tensor) -> tuple[Tensor, Tensor]:
        edges = dict(zip("hwd", features.shape[2:], strict=True))
        query, value = self._heads(self.query_value(self.norm(features)).flatten(2))
        map_query, map_value = self._heads(self.map_query_value(self.map_norm(semantic_map)))
        attended = F.scaled_dot_product_attention(query, map_query, map_value)
        attended = rearrange(attended, "b heads (h w d) e -> b (e heads) h w d", **edges)
        result = self.mix(self.shortcut(features) + self.project(attended))
        if self.map_project is None:
            return result, semantic_map
        map_attended = F.scaled_dot_product_attention(map_query, query, value)
        return result, semantic_map + self.map_project(rearrange(map_attended, "b heads m e -> b (e heads) m"))

    def _heads(self, tokens: Tensor) -> Tensor:
        """Divide B x 2C x T into queries and values, 2 x B x heads x T x e, whose channels lie head by head in e."""
        return rearrange(tokens, "b (two e heads) t -> two b heads t e", two=2, heads=self.num_heads)


class InvertedResidual(nn.Module):
    """x + projection(SE(depthwise(expansion(x)))): four times as many channels in between, all units pre-activated.

    Shapes: B x C x H x W x D, and the result.

    Args:
        channels: C.
        kernel: three edges, of the depthwise convolution.
        act: activation of the units; squeeze and excitation has a ReLU whatever it is.
    """

    def __init__(self, channels: int, kernel: Kernel, act: str) -> None:
        super().__init__()
        wide = EXPANSION * channels
        self.layers = nn.Sequential(
            unit(channels, wide, (1, 1, 1), act),
            unit(wide, wide, kernel, act, groups=wide),
            ChannelSELayer(3, wide, r=4),
            unit(wide, channels, (1, 1, 1), None),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + cast(Tensor, self.layers(features))


class SemanticMap(nn.Module):
    """A map of M tokens, each a mean of the features under a learned weighting of all voxels.

    Shapes: B x C x H x W x D to B x C x M.

    Args:
        channels: C.
        tokens: M.
    """

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.values = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.weights = nn.Conv3d(channels, tokens, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        weights = self.weights(features).flatten(2).softmax(dim=-1)
        return self.values(features).flatten(2) @ weights.transpose(1, 2)


def unit(in_channels: int, channels: int, kernel: Kernel, act: str | None, groups: int = 1) -> nn.Sequential:
    """Instance norm without parameters, activation (None: none) and convolution without bias, in this order."""
    norm = nn.InstanceNorm3d(in_channels, eps=1e-4)
    activation = [get_act_layer(act)] if act else []
    return nn.Sequential(norm, *activation, convolution(in_channels, channels, kernel, groups))


def separable(in_channels: int, channels: int, kernel: Kernel) -> nn.Sequential:
    """A depthwise and a pointwise convolution without biases."""
    depthwise = convolution(in_channels, in_channels, kernel, groups=in_channels)
    return nn.Sequential(depthwise, nn.Conv3d(in_channels, channels, 1, bias=False))


def convolution(in_channels: int, channels: int, kernel: Kernel, groups: int = 1) -> nn.Conv3d:
    """A convolution without bias that keeps the size of its input.

    Raises:
        ValueError: an edge of the kernel is even.
    """
    if not math.prod(kernel) % 2:
        raise ValueError(f"Kernels need three odd edges to keep the size of an image; found {list(kernel)}.")
    edges = cast("tuple[int, int, int]", tuple(kernel))
    padding = cast("tuple[int, int, int]", tuple(edge // 2 for edge in kernel))
    return nn.Conv3d(in_channels, channels, edges, padding=padding, groups=groups, bias=False)
