"""Heads of the alignment: class channels from the last image features, and projections to the shared space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from scripts.networks.word_head import WordHead


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


class WordClassEmbedding(nn.Module):
    """Head for the MLP of eq. 3 with classes told apart by their words: kernels on the features of V_4.

    Deviations:
        The paper's MLP has a channel for each class. Here no parameter depends on the classes.

    Args:
        vision_channels: C_4.
        text_channels: D.
        background: whether the first channel is the background's.
        width: of the MLP's features.

    Source:
        BiPVL-Seg, section 3.3.1 and eq. 3, after ``WordHead``.
    """

    def __init__(self, vision_channels: int, text_channels: int, *, background: bool = True, width: int = 64) -> None:
        super().__init__()
        self.features = ClassEmbeddingHead(vision_channels, width)
        self.head = WordHead(text_channels, width, background=background)

    def centre_on(self, states: Tensor) -> None:
        """As for ``WordHead``."""
        self.head.centre_on(states)

    def forward(self, features: Tensor, states: Tensor, kept: Tensor) -> Tensor:
        """Compute class channels (B x C x h x w x d) from V_4 (B x C_4 x h x w x d) and the words.

        Args:
            features: V_4
            states: the [CLS] states of the classes' sentences, N x K x D
            kept: True on those that count, N x K
        """
        return self.head(self.features(features), self.head.kernels(states, kept))


class WordAlignmentProjection(nn.Module):
    """Projections of eq. 4 for any classes: V_i are image features averaged over class i's mask.

    ``t'_k = norm(Proj_t(t_k))`` and ``V'_i = norm(Proj_v(V_i))``, V_i the means of V_1 to V_4 over the class's own
    predicted mask, end to end. The mask are the decoder's probabilities, pooled by area to the grid of each stage.

    Deviations:
        The paper flattens the class's channel of eq. 3, which here is made of words: text would be aligned with text.
        V_4 alone is too coarse for a mask: a small patch has two cells, and all classes nearly the same mean.

    Args:
        stage_channels: C_1 to C_4.
        text_channels: D.
        projection_channels: P, width of the shared space.

    Source:
        BiPVL-Seg, section 3.3.2, eq. 4.
    """

    def __init__(self, stage_channels: Sequence[int], text_channels: int, projection_channels: int = 128) -> None:
        super().__init__()
        self.text = nn.Linear(text_channels, projection_channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in stage_channels)
        self.vision = nn.Linear(sum(stage_channels), projection_channels)

    def forward(self, stages: Sequence[Tensor], probabilities: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Project both modalities into the shared space.

        Args:
            stages: V_1 to V_4, each B x C_n x h x w x d
            probabilities: of the foreground classes, detached, B x N x H x W x D
            states: the [CLS] states of their sentences, N x K x D

        Returns:
            V' (B x N x P) and t'_k (B x N x K x P)
        """
        seen = [norm(_means(features, probabilities)) for norm, features in zip(self.norms, stages, strict=True)]
        concepts = F.normalize(self.text(states), dim=-1)
        vision = F.normalize(self.vision(torch.cat(seen, dim=-1)), dim=-1)
        return vision, concepts.expand(len(vision), -1, -1, -1)


def _means(features: Tensor, probabilities: Tensor) -> Tensor:
    """Return the mean of features (B x C x h x w x d) over each mask (B x N x H x W x D).  # B x N x C"""
    height, width, depth = features.shape[2:]
    masks = F.adaptive_avg_pool3d(probabilities, (height, width, depth)).flatten(2)
    masks = masks / masks.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(masks.dtype).tiny)
    return einsum(masks, features.flatten(2), "b n s, b c s -> b n c")
