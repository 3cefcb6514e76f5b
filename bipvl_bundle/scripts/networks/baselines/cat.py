"""CAT: segmentation queries consult textual and anatomical prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.networks.baselines.frozen_texts import FrozenTexts, ReadsFrozenTexts
from scripts.networks.baselines.query_blocks import (
    AttentionBlock,
    ClassRoles,
    HardGrouping,
    ResidualMLP,
    class_roles,
    projected,
    tokens_of,
)
from scripts.networks.baselines.swin_features import SwinFeatures
from scripts.networks.outputs import Contrast, SupervisedOutput
from scripts.words.table import ConceptTable

START_TEMPERATURE = 0.05
LOWEST_TEMPERATURE = 0.01
SMOOTHING = 0.1


class ShareRefiner(nn.Module):
    """Queries and prompts read a state by one attention and one MLP that they share.

    Queries and textual prompts attend to the state; anatomical prompts, if there are any, are grouped hard with it.

    Shapes: each of the three B x N x before, state B x C x h x w x d; returns them, B x N x C.
    """

    def __init__(self, before: int, channels: int, *, anatomical: bool) -> None:
        super().__init__()
        self.enter = projected(before, channels)
        self.enter_prompts = projected(before, channels)
        self.attend = AttentionBlock(channels)
        self.group = HardGrouping(channels) if anatomical else None
        self.interact = AttentionBlock(channels)
        self.mlp = ResidualMLP(channels)

    def forward(self, queries: Tensor, texts: Tensor, anatomy: Tensor | None, state: Tensor) -> list[Tensor]:
        tokens = tokens_of(state)
        streams = []
        for entered in (self.enter(queries), self.enter_prompts(texts)):
            streams.append(entered + self.attend(entered, tokens))
        if anatomy is not None and self.group is not None:
            linear, _, norm = self.enter_prompts
            entered = norm(linear(anatomy))
            streams.append(entered + self.group(entered, tokens))
        return [self.mlp(self.interact(stream, stream)) for stream in streams]


class PromptRefer(nn.Module):
    """Queries attend to the prompts that they may see, then to each other.

    Shapes: queries B x N x C, prompts B x P x C, blocked N x P (bool); returns B x N x C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = projected(channels, channels)
        self.consult = AttentionBlock(channels)
        self.interact = AttentionBlock(channels)
        self.mlp = ResidualMLP(channels)

    def forward(self, queries: Tensor, prompts: Tensor, blocked: Tensor) -> Tensor:
        entered = self.enter(queries)
        queries = entered + self.consult(entered, prompts, blocked)
        return cast(Tensor, self.mlp(self.interact(queries, queries)))


class CAT(ReadsFrozenTexts):
    """Coordination of anatomical and textual prompts for organs and lesions, known by the concept table.

    Each class has a learned query and, as prompts, the vector of its words and, with ``anatomical``, the mean state of
    its structure in training images. Queries and prompts read the image; an organ's query then sees the prompts of all
    organs, a lesion's those of itself and its hosts. A query's kernel on the decoder's features gives its logit.

    A class whose code is marked ``abnormal``, or that has ``hosts``, is a lesion. Without lesions every query sees all
    prompts and the mask does nothing; of CAT the two kinds of prompts remain.

    ``forward`` returns the logits, B x C x H x W x D; in training with ``alignment`` a ``SupervisedOutput`` with a
    contrast of queries and each kind of prompts. Anatomical prompts are a buffer, ``anatomy`` (C x width), which
    ``scripts.training.anatomical_prompts`` fills from the training cases; all zeros until then.

    Parameters with Swin UNETR 48, vectors of 768, sixteen classes, both prompts and alignment: 105.95 million; of the
    published network 6,144 more are never read.

    Deviations:
        - The background, where it is a class, has a query and prompts like the organs, and no part in the alignment.
        - Vectors of another width than the deepest state pass a linear map.
        - The stage-specific extras of the mask (the bowel beside a colon tumour) are what ``hosts`` says.

    Of the published code:
        - Prompts are read from a file chosen at random in every forward, also in inference. Here there is one table.
        - The mask is coded by index for 32 classes, and its halves are one tensor, so that what is meant to open
          anatomical prompts opens textual ones too. Here it follows from the table.
        - The option for the last level alone does the opposite of its name. Here ``levels`` is a number.
        - The maker of the anatomical prompts is not public. Here it is our own.
        - At 96^3 the deepest state has 27 tokens, to be grouped among more prompts: most get none.

    Args:
        backbone: gives the features.
        concepts: the words, one class a foreground channel, in label order.
        text_encoder: see ``FrozenTexts``.
        levels: 1 reads the deepest state alone, 4 all of them, from the deepest to the finest.
        anatomical: whether there are anatomical prompts.
        alignment: whether queries are aligned with their prompts in training.
        prompt: what is read of a class; all of its sentences joined by default.
        hosts: lesions by name with the names of their organs.
        softmax: True where classes exclude each other.
        text_width: of a vector, where there is no text encoder.

    Raises:
        FileNotFoundError: the text encoder is not there.
        ValueError: as for ``FrozenTexts``; ``levels`` other than 1 to 4; a name in ``hosts`` that is no class; in
            ``forward``, an image that the backbone refuses.

    Source:
        Huang et al., "CAT: Coordinating Anatomical-Textual Prompts for Multi-Organ and Tumor Segmentation" (2024).
    """

    anatomy: Tensor

    def __init__(
        self,
        backbone: SwinFeatures,
        concepts: ConceptTable,
        text_encoder: str | None,
        *,
        levels: int = 1,
        anatomical: bool = False,
        alignment: bool = False,
        prompt: str = "{text}",
        hosts: Mapping[str, Sequence[str]] | None = None,
        softmax: bool = True,
        text_width: int | None = None,
    ) -> None:
        super().__init__()
        if levels not in range(1, 5):
            raise ValueError(f"CAT reads 1 to 4 `levels`; found {levels}.")
        self.backbone = backbone
        self.texts = FrozenTexts(concepts, text_encoder, prompt=prompt, background=softmax, width=text_width)
        self.roles = class_roles(concepts, softmax, hosts)
        widths, channels = backbone.widths[:levels], backbone.channels
        first, last, vector = widths[0], widths[-1], self.texts.frozen_texts.shape[-1]
        count = len(concepts.classes) + int(softmax)
        self.queries = nn.Parameter(torch.randn(count, first))
        self.enter_texts = nn.Identity() if vector == first else nn.Linear(vector, first)
        before = (first, *widths)
        self.refiners = nn.ModuleList(
            ShareRefiner(b, width, anatomical=anatomical) for b, width in zip(before, widths, strict=False)
        )
        self.refer = PromptRefer(last)
        self.kernels = nn.Sequential(nn.Linear(last, channels), nn.LayerNorm(channels))
        kinds = ("text", "anatomy") if anatomical else ("text",)
        self.align = nn.ModuleDict({name: nn.Linear(last, last) for name in ("query", *kinds)} if alignment else {})
        if alignment:
            self.temperature = nn.Parameter(torch.tensor(START_TEMPERATURE))
        self.anatomical = anatomical
        if anatomical:
            self.register_buffer("anatomy", torch.zeros(count, first))
        self.register_buffer("blocked", _blocked(self.roles).repeat(1, len(kinds)), persistent=False)

    def forward(self, image: Tensor) -> Tensor | SupervisedOutput:
        """Segment a batch of images (B x in_channels x H x W x D)."""
        features = self.backbone(image)
        batch = len(image)
        queries = self.queries.expand(batch, -1, -1)
        texts = self.enter_texts(self.texts.frozen_texts[self.texts.modality]).expand(batch, -1, -1)
        anatomy = self.anatomy.expand(batch, -1, -1) if self.anatomical else None
        for refiner, state in zip(self.refiners, features.states, strict=False):
            queries, texts, *rest = refiner(queries, texts, anatomy, state)
            anatomy = rest[0] if rest else None
        prompts = texts if anatomy is None else torch.cat([anatomy, texts], dim=1)
        referred = self.refer(queries, prompts, cast(Tensor, self.blocked))
        logits = (self.kernels(referred) @ features.full.flatten(2)).unflatten(2, features.full.shape[2:])
        if not self.training or not self.align:
            return cast(Tensor, logits)
        pairs = {"text": texts} | ({} if anatomy is None else {"anatomy": anatomy})
        return SupervisedOutput(
            logits, contrasts={f"query_{k}": self._contrast(referred, k, v) for k, v in pairs.items()}
        )

    def _contrast(self, queries: Tensor, kind: str, prompts: Tensor) -> Contrast:
        rows = self.roles.classes
        first, second = (
            F.normalize(self.align[name](vectors[:, rows]), dim=-1)
            for name, vectors in (("query", queries), (kind, prompts))
        )
        temperature = self.temperature.clamp(min=LOWEST_TEMPERATURE)
        own = torch.eye(len(rows), dtype=torch.bool, device=first.device)
        return Contrast(first, second, temperature, own, symmetric=True, smoothing=SMOOTHING)


def _blocked(roles: ClassRoles) -> Tensor:
    """Which prompts of one kind a query does not see, C x C."""
    count = len(roles.organs) + len(roles.lesions)
    seen = torch.zeros(count, count, dtype=torch.bool)
    organs = torch.tensor(roles.organs, dtype=torch.long)
    seen[organs[:, None], organs] = True
    for lesion in roles.lesions:
        seen[lesion, [lesion, *roles.hosts.get(lesion, ())]] = True
    return ~seen
