"""Multi-head attention that never stores the matrix of all pairs of tokens."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from scripts.networks.joint_linear import JointLinear


class Attention(nn.Module):
    """Multi-head attention with an output projection: softmax(Q K^T / sqrt(head width)) V.

    ``torch.nn.MultiheadAttention`` is not used: its fast path in evaluation holds the attention matrix,
    2.3 GB for the 24^3 tokens of Swin UNETR's first stage.

    Args:
        channels: width of queries, keys, values and output.
        num_heads: must divide ``channels``.
        dropout: on the attention weights, in training.

    Raises:
        ValueError: ``num_heads`` does not divide ``channels``.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(
                f"{num_heads} attention heads cannot share {channels} channels; "
                "set `num_heads` to divisors of the backbone's stage channels."
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self._joint = JointLinear()

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Attend from ``tokens`` (B x M x C) to ``context`` (B x S x C); returns B x M x C."""
        if context is tokens:
            projected = self._joint(tokens, self.query, self.key, self.value).chunk(3, dim=-1)
        else:
            projected = (self.query(tokens), *self._joint(context, self.key, self.value).chunk(2, dim=-1))
        query, key, value = (rearrange(x, "b n (h c) -> b h n c", h=self.num_heads) for x in projected)
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout if self.training else 0.0)
        return self.output(rearrange(attended, "b h n c -> b n (h c)"))
