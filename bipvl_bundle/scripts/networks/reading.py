"""The sentences on their way through the text encoder while an image is on its way through the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einops import rearrange
from torch import Tensor

if TYPE_CHECKING:
    from scripts.networks.bipvl_seg import BiPVLSeg

STAGES = (1, 2, 3, 4)


class Reading:
    """One forward pass of the text: read as far as a fusion needs it, fused, read on.

    Args:
        network: whose text encoder, words and BiFusion blocks are used.
        batch: B, images in the batch; each has a copy of the sentences from the first fusion on.

    Attributes:
        features: V_n of the last stage that was passed, fused where it is.  # B x C_n x h x w x d
    """

    def __init__(self, network: BiPVLSeg, batch: int) -> None:
        self.network = network
        self.batch = batch
        self.stage = 0  # how far the text is read
        self.last = STAGES[-1] if network.training else max(network.fused_stages, default=0)  # to be read at all
        self.hidden: Tensor | None = None  # B x T x D, packed
        self.features: Tensor | None = None

    def fuse(self, stage: int, features: Tensor) -> Tensor:
        """Read on to the end of a stage that has a fusion, then fuse; other stages pass."""
        self.features = features
        if stage in self.network.fused_stages:
            hidden, sentences = self._read_to(stage), self.network.sentences
            fusion = self.network.fusions[block_name(stage)]
            if self.network.fuse_all_tokens:
                self.hidden, self.features = fusion(hidden, features)
            else:
                text, self.features = fusion(sentences.cls(hidden), features)
                self.hidden = sentences.replace_cls(hidden, text)
        return self.features

    def concepts(self) -> Tensor:
        """The [CLS] states after the last text stage, in training: B x N x K x D."""
        states = self.network.sentences.cls(self._read_to(STAGES[-1]))
        return rearrange(states, "b (n k) c -> b n k c", n=len(self.network.concepts.classes))

    def _read_to(self, stage: int) -> Tensor:
        network = self.network
        if self.hidden is None:
            self.hidden = network.read_alone().repeat(self.batch, 1, 1)
            self.stage = network.stages_alone
        while self.stage < stage:
            self.stage += 1
            self.hidden = network.text_encoder.run_stage(
                self.stage, self.hidden, network.sentences, cls_only=self._reads_only_cls(self.stage)
            )
        return self.hidden

    def _reads_only_cls(self, stage: int) -> bool:
        return stage == self.last and not fuses_all_tokens(self.network, stage)


def fuses_all_tokens(network: BiPVLSeg, stage: int) -> bool:
    """Whether a BiFusion block reads every token that a text stage gives, not the [CLS] states alone."""
    return network.fuse_all_tokens and stage in network.fused_stages


def block_name(stage: int) -> str:
    """The name of a stage's BiFusion block; they count from 0, whichever of them there are."""
    return str(stage - 1)
