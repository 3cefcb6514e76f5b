"""Skip attention: upsampled features ask the encoder's, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from einops import rearrange
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor, nn


class SkipWindowAttention(nn.Module):
    """Multi-head attention within windows: softmax(q k^T / sqrt(d) + b) v.

    q are the upsampled features themselves, k and v one linear map of the skip, b the bias of the relative position of
    two voxels in a window. Features that the windows do not divide are filled up with zeros.

    Shapes: upsampled and skip B x H x W x D x C, and the result.

    Args:
        channels: C.
        num_heads: must divide C.
        window: its three edges.

    Source:
        Zhou et al., "nnFormer" (2023), skip attention.
    """

    def __init__(self, channels: int, num_heads: int, window: Sequence[int]) -> None:
        super().__init__()
        self.window = tuple(window)
        self.num_heads = num_heads
        self.key_value = nn.Linear(channels, 2 * channels)
        position = WindowAttention(channels, num_heads, self.window)  # its table of biases and its index are right
        self.bias_table = nn.Parameter(position.relative_position_bias_table.detach())
        self.bias_index: Tensor
        self.register_buffer("bias_index", cast(Tensor, position.relative_position_index))
        self.project = nn.Linear(channels, channels)

    def forward(self, upsampled: Tensor, skip: Tensor) -> Tensor:
        a, b, c = self.window
        h, w, d = upsampled.shape[1:-1]
        query, key_value = (self._padded(features) for features in (upsampled, self.key_value(skip)))
        grid = {name: edge // size for name, edge, size in zip("hwd", query.shape[1:-1], self.window, strict=True)}
        tokens = "(n h w d) heads (a b c) e"
        query = rearrange(query, f"n (h a) (w b) (d c) (heads e) -> {tokens}", a=a, b=b, c=c, heads=self.num_heads)
        key, value = rearrange(
            key_value, f"n (h a) (w b) (d c) (two heads e) -> two {tokens}", a=a, b=b, c=c, two=2, heads=self.num_heads
        )
        bias = rearrange(self.bias_table[self.bias_index], "i j heads -> 1 heads i j").to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        attended = rearrange(attended, f"{tokens} -> n (h a) (w b) (d c) (heads e)", a=a, b=b, c=c, **grid)
        return self.project(attended[:, :h, :w, :d])

    def _padded(self, features: Tensor) -> Tensor:
        missing = [-edge % size for edge, size in zip(features.shape[1:-1], self.window, strict=True)]
        return F.pad(features, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
