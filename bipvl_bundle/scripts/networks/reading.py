"""Forward pass of the text encoder in step with the backbone: stage by stage, with a fusion in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from scripts.networks.bifusion import BiFusion
from scripts.networks.packing import PackedSentences
from scripts.networks.text_encoder import StagedTextEncoder

STAGES = (1, 2, 3, 4)


@dataclass
class TextPath:
    """Parts of a network that a forward pass of its text uses: sentences, text encoder, BiFusion blocks.

    Attributes:
        encoder: the staged BERT.
        sentences: the packed sentences.
        fusions: a BiFusion block for each fused stage, named by ``block_name``.
        fused_stages: the stages after which text and image meet.
        fuse_all_tokens: whether BiFusion sees every token, not one [CLS] state a sentence.
        read_alone: gives the text up to the first fusion, packed, which no image has touched.  # 1 x T x D
    """

    encoder: StagedTextEncoder
    sentences: PackedSentences
    fusions: nn.ModuleDict
    fused_stages: Sequence[int]
    fuse_all_tokens: bool
    read_alone: Callable[[], Tensor]

    @property
    def stages_alone(self) -> int:
        """Number of text stages before the first fusion, which do not depend on the image."""
        return min(self.fused_stages, default=len(STAGES))

    def fuses_all_tokens(self, stage: int) -> bool:
        """Whether a BiFusion block reads every token that a text stage gives, not the [CLS] states alone."""
        return self.fuse_all_tokens and stage in self.fused_stages


class Reading:
    """One forward pass of the text encoder for a batch of images, run lazily, up to the stage that is fused next.

    Args:
        text: what is read, and by what.
        batch: B, images in the batch; each has a copy of the sentences from the first fusion on.
        alone: what ``text.read_alone`` would give, where the caller has it already.
        to_the_end: whether the states after the last stage are asked for, as in training; else the text is read
            no further than the last fusion.

    Attributes:
        stages: V_1 to V_n of the stages that were passed, fused where they are.  # each B x C_n x h x w x d
    """

    def __init__(self, text: TextPath, batch: int, *, to_the_end: bool, alone: Tensor | None = None) -> None:
        self.text = text
        self.alone = alone
        self.batch = batch
        self.stage = 0  # how far the text is read
        self.last = STAGES[-1] if to_the_end else max(text.fused_stages, default=0)  # to be read at all
        self.hidden: Tensor | None = None  # B x T x D, packed
        self.stages: list[Tensor] = []

    def fuse(self, stage: int, features: Tensor) -> Tensor:
        """Run the text encoder up to a fused stage and apply its BiFusion; other stages' features pass unchanged."""
        if stage in self.text.fused_stages:
            hidden, sentences = self._read_to(stage), self.text.sentences
            fusion = cast(BiFusion, self.text.fusions[block_name(stage)])
            if self.text.fuse_all_tokens:
                self.hidden, features = fusion(hidden, features)
            else:
                cls, features = fusion(sentences.cls(hidden), features)
                self.hidden = sentences.replace_cls(hidden, cls)
        self.stages.append(features)
        return features

    def cls_states(self) -> Tensor:
        """Return the [CLS] state of every sentence after the last text stage, B x S x D."""
        return self.text.sentences.cls(self._read_to(STAGES[-1]))

    def _read_to(self, stage: int) -> Tensor:
        text = self.text
        if self.hidden is None:
            alone = text.read_alone() if self.alone is None else self.alone
            self.hidden = alone.repeat(self.batch, 1, 1)
            self.stage = text.stages_alone
        while self.stage < stage:
            self.stage += 1
            cls_only = self.stage == self.last and not text.fuses_all_tokens(self.stage)
            self.hidden = text.encoder.run_stage(self.stage, self.hidden, text.sentences, cls_only=cls_only)
        return self.hidden


def block_name(stage: int) -> str:
    """Return the name of a stage's BiFusion block; names count from 0, whichever blocks there are."""
    return str(stage - 1)
