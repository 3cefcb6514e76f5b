"""Blocks of query-based segmentation, as ZePT and CAT share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from monai.networks.blocks import MLPBlock
from torch import Tensor, nn

from scripts.words.checks import find_name
from scripts.words.table import ConceptTable

HEADS = 8


class AttentionBlock(nn.Module):
    """x = q + A(q, k); x = x + MLP(LN x); LN x, with eight heads. Shapes: B x N x C and B x T x C to B x N x C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, HEADS, batch_first=True)
        self.mlp = ResidualMLP(channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, queries: Tensor, tokens: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Attend to the tokens; ``blocked`` (N x T, bool) are those that a query does not see."""
        attended, _ = self.attention(queries, tokens, tokens, attn_mask=blocked, need_weights=False)
        return cast(Tensor, self.norm(self.mlp(queries + attended)))


class ResidualMLP(nn.Module):
    """x + MLP(LN x), four times as wide in between, GELU. Shapes: B x N x C, and the result."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mlp = MLPBlock(channels, 4 * channels, dropout_mode="swin")

    def forward(self, queries: Tensor) -> Tensor:
        return queries + cast(Tensor, self.mlp(self.norm(queries)))


class HardGrouping(nn.Module):
    """Each token goes to one query, which takes the mean of its tokens.

    Scores q k^T / sqrt(C) pass a softmax over the *queries*; a token belongs to the largest, with the gradient of the
    softmax. A query's sum over its v is divided by their number + 1, mapped and added to the query.
    In training Gumbel noise is added to the scores, which makes training random.

    Shapes: queries B x N x C, tokens B x T x C; returns B x N x C.

    Source:
        Xu et al., "GroupViT" (2022); Jiang et al., "ZePT" (2024).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.project = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        scores = self.query(queries) @ self.key(tokens).transpose(1, 2) / queries.shape[-1] ** 0.5
        if self.training:
            groups = F.gumbel_softmax(scores, hard=True, dim=1)
        else:
            groups = F.one_hot(scores.argmax(dim=1), scores.shape[1]).transpose(1, 2).to(scores.dtype)
        means = groups @ self.value(tokens) / (groups.sum(dim=-1, keepdim=True) + 1)
        return queries + cast(Tensor, self.project(means))


def tokens_of(features: Tensor) -> Tensor:
    """Features B x C x H x W x D as tokens, B x HWD x C."""
    return features.flatten(2).transpose(1, 2)


def projected(in_channels: int, channels: int) -> nn.Sequential:
    """Linear, GELU, LayerNorm."""
    return nn.Sequential(nn.Linear(in_channels, channels), nn.GELU(), nn.LayerNorm(channels))


@dataclass(frozen=True)
class ClassRoles:
    """Which channels are organs and which are lesions, and where a lesion sits.

    Attributes:
        organs: channels of the anatomical structures, and of the background where it is a class.
        lesions: channels of the others.
        hosts: for each lesion the channels of its organs, if any are classes.
        background: whether channel 0 is the background.
    """

    organs: tuple[int, ...]
    lesions: tuple[int, ...]
    hosts: Mapping[int, tuple[int, ...]]
    background: bool

    @property
    def classes(self) -> list[int]:
        """All channels but the background."""
        return list(range(int(self.background), len(self.organs) + len(self.lesions)))

    def related(self) -> Tensor:
        """Which classes belong together, N x N: each with itself, a lesion with its organs, all lesions."""
        channels = len(self.organs) + len(self.lesions)
        found = torch.eye(channels, dtype=torch.bool)
        lesions = torch.tensor(self.lesions, dtype=torch.long)
        found[lesions[:, None], lesions] = True
        for lesion, organs in self.hosts.items():
            for organ in organs:
                found[lesion, organ] = found[organ, lesion] = True
        return found[self.classes][:, self.classes]


def class_roles(concepts: ConceptTable, softmax: bool, hosts: Mapping[str, Sequence[str]] | None = None) -> ClassRoles:
    """Read the roles of the classes: a lesion is one whose code in the table is marked ``abnormal``.

    Args:
        concepts: the table.
        softmax: whether the background is channel 0.
        hosts: lesions by name with the names of their organs; these lesions need no mark.

    Raises:
        ValueError: a name that is no class.
    """

    def channel(name: str) -> int:
        return concepts.classes.index(find_name(name, concepts.classes, "class", concepts.source)) + int(softmax)

    sits = {channel(name): tuple(channel(organ) for organ in organs) for name, organs in (hosts or {}).items()}
    codes = concepts.codes or (None,) * len(concepts.classes)
    marked = {n + int(softmax) for n, code in enumerate(codes) if code is not None and code.abnormal} | set(sits)
    channels = range(len(concepts.classes) + int(softmax))
    organs = tuple(n for n in channels if n not in marked)
    return ClassRoles(organs, tuple(sorted(marked)), sits, softmax)
