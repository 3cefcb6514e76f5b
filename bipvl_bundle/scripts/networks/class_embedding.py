"""Heads of the alignment: class channels from the last image features, and projections to the shared space."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class ClassEmbeddingHead(nn.Module):
    """Head that computes one channel per output channel of the decoder from V_4: the MLP of eq. 3.

    Deviations:
        LayerNorm before the MLP: with Swin UNETR V_4 is not normalised.

    Args:
        vision_channels: C_4.
        out_channels: C, as many as the decoder has.

    Source:
        BiPVL-Seg, section 3.3.1 and eq. 3.
    """

    def __init__(self, vision_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(vision_channels)
        self.mlp = nn.Sequential(
            nn.Linear(vision_channels, vision_channels // 2),
            nn.GELU(),
            nn.Linear(vision_channels // 2, out_channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Compute class channels (B x C x h x w x d) from V_4 (B x C_4 x h x w x d)."""
        class_map = self.mlp(self.norm(rearrange(features, "b c h w d -> b h w d c")))
        return rearrange(class_map, "b h w d c -> b c h w d")


class AlignmentProjection(nn.Module):
    """Projections Proj_t and Proj_v of eq. 4, each followed by L2 normalisation.

    ``t'_k = norm(Proj_t(t_k))`` and ``V' = norm(Proj_v(V))``, V being a class channel, flattened.

    Deviations:
        The class map is pooled to ``grid``^3 cells first, which changes nothing at 96^3 with Swin UNETR,
        so that any ROI size works.

    Args:
        text_channels: D.
        projection_channels: P, width of the shared space.
        grid: cells along each edge of the pooled class map.

    Source:
        BiPVL-Seg, section 3.3.2, eq. 4.
    """

    def __init__(self, text_channels: int, *, projection_channels: int = 128, grid: int = 3) -> None:
        super().__init__()
        self.grid = grid
        self.text = nn.Linear(text_channels, projection_channels)
        self.vision = nn.Linear(grid**3, projection_channels)

    def forward(self, class_map: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """Project both modalities into the shared space.

        Args:
            class_map: the channels of the foreground classes, B x N x h x w x d
            concepts: the fused [CLS] states t_k, B x N x K x D

        Returns:
            V' (B x N x P) and t'_k (B x N x K x P)
        """
        pooled = F.adaptive_avg_pool3d(class_map, self.grid).flatten(2)
        return F.normalize(self.vision(pooled), dim=-1), F.normalize(self.text(concepts), dim=-1)
