"""The sentences on their way through the text encoder while an image is on its way through the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

if TYPE_CHECKING:
    from scripts.networks.bipvl_seg import BiPVLSeg

STAGES = (1, 2, 3, 4)


class Reading:
    """One forward pass of the text: read as far as a fusion needs it, fused, read on.

    Args:
        network: whose text encoder, words and BiFusion blocks are used.
        batch: B, images in the batch; each has a copy of the N * K sentences from the first fusion on.

    Attributes:
        features: V_n of the last stage that was passed, fused where it is.  # B x C_n x h x w x d
    """

    def __init__(self, network: BiPVLSeg, batch: int) -> None:
        self.network = network
        self.batch = batch
        self.stage = 0  # how far the text is read
        self.hidden: Tensor | None = None  # B*S x L x D, S = N * K
        self.features: Tensor | None = None

    def fuse(self, stage: int, features: Tensor) -> Tensor:
        """Read on to the end of a stage that has a fusion, then fuse; other stages pass."""
        self.features = features
        if stage in self.network.fused_stages:
            hidden = self._read_to(stage)
            text = rearrange(hidden[:, 0], "(b s) c -> b s c", b=self.batch)
            text, self.features = self.network.fusions[block_name(stage)](text, features)
            fused_cls = rearrange(text, "b s c -> (b s) 1 c").to(hidden.dtype)
            self.hidden = torch.cat([fused_cls, hidden[:, 1:]], dim=1)
        return self.features

    def concepts(self) -> Tensor:
        """The [CLS] states after the last text stage: B x N x K x D."""
        hidden = self._read_to(STAGES[-1])
        return rearrange(hidden[:, 0], "(b n k) c -> b n k c", b=self.batch, n=len(self.network.concepts.classes))

    def _read_to(self, stage: int) -> Tensor:
        network = self.network
        if self.hidden is None:
            self.hidden = network.read_alone().repeat(self.batch, 1, 1)
            self.stage = network.stages_alone
        mask = network.token_mask.repeat(self.batch, 1)
        while self.stage < stage:
            self.stage += 1
            self.hidden = network.text_encoder.run_stage(self.stage, self.hidden, mask)
        return self.hidden


def block_name(stage: int) -> str:
    """The name of a stage's BiFusion block; they count from 0, whichever of them there are."""
    return str(stage - 1)
