"""ZePT: organs have queries of their own, lesions look where no organ is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.networks.baselines.frozen_texts import FrozenTexts, ReadsFrozenTexts
from scripts.networks.baselines.query_blocks import (
    HEADS,
    AttentionBlock,
    HardGrouping,
    ResidualMLP,
    class_roles,
    projected,
    tokens_of,
)
from scripts.networks.baselines.swin_features import Features, SwinFeatures
from scripts.networks.outputs import Contrast, SupervisedOutput
from scripts.words.table import ConceptTable

START_TEMPERATURE = 0.07
LOWEST_TEMPERATURE = 0.01
OPEN = 0.5  # of the range of an anomaly map: below, a lesion's query does not look


class GroupingBlock(nn.Module):
    """Queries of one level read the image's state there: attention, then hard grouping, then an MLP.

    Shapes: queries B x N x before, state B x C x h x w x d; returns B x N x C.
    """

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.enter = projected(before, channels)
        self.norm = nn.LayerNorm(channels)
        self.attend = AttentionBlock(channels)
        self.group = HardGrouping(channels)
        self.mlp = ResidualMLP(channels)

    def forward(self, queries: Tensor, state: Tensor) -> Tensor:
        tokens = self.norm(tokens_of(state))
        return cast(Tensor, self.mlp(self.group(self.attend(self.enter(queries), tokens), tokens)))


class LesionRefinement(nn.Module):
    """Queries of lesions look at the open part of a state, then at each other: post-norm, ReLU, as in Mask2Former.

    Shapes: queries B x N x W, state B x C x h x w x d, blocked B x hwd (bool); returns B x N x W.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(channels, width), nn.GELU())
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.interact = _interaction(width)

    def forward(self, queries: Tensor, state: Tensor, blocked: Tensor | None) -> Tensor:
        tokens = self.enter(tokens_of(state))
        attended, _ = self.attention(queries, tokens, tokens, key_padding_mask=blocked, need_weights=False)
        return cast(Tensor, self.interact(self.norm(queries + attended)))


class ZePT(ReadsFrozenTexts):
    """Query-disentangling segmentation of organs and lesions, its classes known by the concept table.

    A class whose code is marked ``abnormal``, or that has ``hosts``, is a lesion; all others are organs, and so is the
    background where classes exclude each other. Organs have fundamental queries, refined level by level; the decoder's
    maps of the queries that fit nowhere make an *anomaly map*, minus the largest score of any organ; lesions have
    advanced queries that look where it is high. A lesion's logit is raised by the map, its hosts' is lowered.

    Words enter by the alignment loss alone, and only in training: other words change the loss and not the segmentation,
    except by what is learnt from them. Without ``alignment`` (the fair row: the paper's authors ran it so) no words
    are read, and no text encoder is needed.

    What remains without a lesion is the fundamental queries: hard grouping at four levels and the alignment. Without an
    organ (as in brain tumours, whose classes are all lesions and overlap) it is the advanced queries, unmasked: the
    anomaly map has nothing to stand on.

    ``forward`` returns the logits, B x C x H x W x D; in training with ``alignment`` a ``SupervisedOutput`` with two
    contrasts. Training draws at random in the grouping, without dropout too.

    Parameters with Swin UNETR 48, vectors of 768 and alignment: 89.7 million for fifteen organs and the background,
    128.7 for the published 25 organs and 7 lesions.

    Of the published code, which never came with its training:
        - Dot products in the alignment are not normalised, so that it starts at some 13,000. Here embeddings are.
        - The targets of query to knowledge and query to query are one tensor, and rows add up to 9. Here they are two,
          averaged over the positives.
        - Pairs of organs and tumours are coded by index, the kidneys' logits are lowered twice. Here the table says it.
        - A constant anomaly map gives 0 / 0, a row that is wholly blocked NaN. Here all is open then.
        - The temperature has no lower bound, and 1.1 million parameters are never read. Here neither.

    Args:
        backbone: gives the features.
        concepts: the words, one class a foreground channel, in label order.
        text_encoder: see ``FrozenTexts``; read with ``alignment`` only.
        alignment: whether queries are aligned with the words in training.
        prompt: what is read of a class; all of its sentences joined by default.
        hosts: lesions by name with the names of their organs.
        softmax: True where classes exclude each other.
        text_width: of a vector, where there is no text encoder.

    Raises:
        FileNotFoundError: the text encoder is not there.
        ValueError: as for ``FrozenTexts``; a name in ``hosts`` that is no class; in ``forward``, an image that the
            backbone refuses.

    Source:
        Jiang et al., "ZePT: Zero-Shot Pan-Tumor Segmentation via Query-Disentangling and Self-Prompting" (2024).
    """

    def __init__(
        self,
        backbone: SwinFeatures,
        concepts: ConceptTable,
        text_encoder: str | None = None,
        *,
        alignment: bool = False,
        prompt: str = "{text}",
        hosts: Mapping[str, Sequence[str]] | None = None,
        softmax: bool = True,
        text_width: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        encoder, width = (text_encoder, text_width) if alignment else (None, 0)
        self.texts = FrozenTexts(concepts, encoder, prompt=prompt, background=softmax, width=width)
        self.roles = class_roles(concepts, softmax, hosts)
        widths, channels = backbone.widths, backbone.channels
        organs, lesions = len(self.roles.organs), len(self.roles.lesions)
        self.norm = nn.LayerNorm(channels)
        if organs:
            self.organs = nn.Parameter(torch.randn(organs, widths[0]))
            levels = zip((widths[0], *widths), widths, strict=False)
            self.grouping = nn.ModuleList(GroupingBlock(before, width) for before, width in levels)
            self.organ_kernels = nn.Linear(widths[-1], channels)
        if lesions:
            self.lesions = nn.Parameter(torch.randn(lesions, widths[0]))
            self.refinement = nn.ModuleList(LesionRefinement(width, widths[0]) for width in widths)
            self.lesion_kernels = nn.Linear(widths[0], channels)
        if lesions and organs:
            self.anomaly_kernels = nn.Sequential(nn.Linear(widths[-1], channels), nn.LayerNorm(channels))
        if lesions or alignment:
            self.interaction = _interaction(widths[0])
        self.align: nn.Module | None = None
        if alignment:
            vector = self.texts.frozen_texts.shape[-1]
            self.align = nn.Sequential(nn.Linear(widths[0], vector), nn.LayerNorm(vector))
            self.temperature = nn.Parameter(torch.tensor(START_TEMPERATURE))
        for name, parameter in self.named_parameters():
            if name.startswith(("refinement.", "interaction.")) and parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, image: Tensor) -> Tensor | SupervisedOutput:
        """Segment a batch of images (B x in_channels x H x W x D)."""
        features = self.backbone(image)
        organs = self._organ_queries(features)
        lesions = self._lesion_queries(features, organs)
        queries = torch.cat([organs[0], lesions], dim=1)  # of the first level
        if hasattr(self, "interaction"):
            queries = self.interaction(queries)
        logits = self._logits(features, organs[-1], queries[:, len(self.roles.organs) :])
        if not self.training or self.align is None:
            return logits
        return SupervisedOutput(logits, contrasts=self._contrasts(queries, self.align))

    def _organ_queries(self, features: Features) -> list[Tensor]:
        """Queries of the organs at each level, B x N x width."""
        batch = len(features.full)
        if not self.roles.organs:
            return [features.full.new_zeros(batch, 0, width) for width in self.backbone.widths]
        queries, found = self.organs.expand(batch, -1, -1), []
        for block, state in zip(self.grouping, features.states, strict=True):
            queries = block(queries, state)
            found.append(queries)
        return found

    def _lesion_queries(self, features: Features, organs: Sequence[Tensor]) -> Tensor:
        batch = len(features.full)
        if not self.roles.lesions:
            return features.full.new_zeros(batch, 0, self.backbone.widths[0])
        queries = self.lesions.expand(batch, -1, -1)
        levels = zip(self.refinement, features.states, features.decoded, organs, strict=True)
        for block, state, decoded, found in levels:
            blocked = blocked_tokens(anomaly_map(found, decoded)) if self.roles.organs else None
            queries = block(queries, state, blocked)
        return queries

    def _logits(self, features: Features, organs: Tensor, lesions: Tensor) -> Tensor:
        """Logits in the order of the channels."""
        found: dict[int, Tensor] = {}
        if self.roles.organs:
            maps = _scores(self.norm(self.organ_kernels(organs)), features.full)
            found |= dict(zip(self.roles.organs, maps.unbind(1), strict=True))
        if self.roles.lesions:
            maps = _scores(self.norm(self.lesion_kernels(lesions)), features.full)
            found |= dict(zip(self.roles.lesions, maps.unbind(1), strict=True))
        if self.roles.lesions and self.roles.organs:
            anomaly = anomaly_map(self.anomaly_kernels(organs), features.full)
            hosts = {organ for lesion in self.roles.lesions for organ in self.roles.hosts.get(lesion, ())}
            found |= {channel: found[channel] + anomaly for channel in self.roles.lesions}
            found |= {channel: found[channel] - anomaly for channel in hosts}
        return torch.stack([found[channel] for channel in sorted(found)], dim=1)

    def _contrasts(self, queries: Tensor, align: nn.Module) -> dict[str, Contrast]:
        """Queries of all classes with the words of their own, and with the queries of related classes."""
        order = [*self.roles.organs, *self.roles.lesions]
        rows = [order.index(channel) for channel in self.roles.classes]
        embedded = F.normalize(align(queries[:, rows]), dim=-1)
        knowledge = F.normalize(self.texts.frozen_texts[self.texts.modality][self.roles.classes], dim=-1)
        knowledge = knowledge.expand(len(queries), -1, -1)
        temperature = self.temperature.clamp(min=LOWEST_TEMPERATURE)
        related = self.roles.related().to(queries.device)
        own = torch.eye(len(rows), dtype=torch.bool, device=queries.device)
        return {
            "query_to_knowledge": Contrast(embedded, knowledge, temperature, own),
            "query_to_query": Contrast(embedded, embedded, temperature, related),
        }


def anomaly_map(queries: Tensor, features: Tensor) -> Tensor:
    """Minus the largest score of any query (B x N x C) at each voxel of features (B x C x H x W x D): B x H x W x D."""
    return -_scores(queries, features).amax(dim=1)


def blocked_tokens(anomaly: Tensor) -> Tensor:
    """Which voxels of an anomaly map (B x H x W x D) are in the lower half of its range; none where all would be.

    Returns:
        B x HWD, bool, without a gradient
    """
    flat = anomaly.detach().flatten(1)
    low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
    blocked = (flat - low) < OPEN * (high - low)
    return blocked & ~blocked.all(dim=1, keepdim=True)


def _scores(kernels: Tensor, features: Tensor) -> Tensor:
    return (kernels @ features.flatten(2)).unflatten(2, features.shape[2:])


def _interaction(width: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(width, HEADS, 4 * width, dropout=0.0, batch_first=True)
