"""A trained BiPVL-Seg without the parts that only training or other words need."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.networks.reading import Reading


class FixedWords(nn.Module):
    """The logits of a ``BiPVLSeg`` in evaluation, with the words that it has now.

    What the text stages make of the words before any image is a constant of this network. Gone are the
    tokenizer, the word embeddings, those text stages, the class embedding and the projections. The weights
    that are left are shared with the given network, except those of the later text stages, which are copies.

    Args:
        network: is set to evaluation.
    """

    words: Tensor  # 1 x T x D, packed

    def __init__(self, network: BiPVLSeg) -> None:
        super().__init__()
        network.eval()
        self.backbone = network.backbone
        self.fusions = network.fusions
        self.fused_stages = network.fused_stages
        self.fuse_all_tokens = network.fuse_all_tokens
        self.stages_alone = network.stages_alone
        self.sentences = network.sentences
        self.text_encoder = copy.deepcopy(network.text_encoder)
        del self.text_encoder.embeddings
        for stage in range(self.stages_alone):
            self.text_encoder.stages[stage] = nn.ModuleList()
        with torch.no_grad():
            self.register_buffer("words", network.read_alone().clone())
        self.eval()

    def read_alone(self) -> Tensor:
        """What ``Reading`` asks of its network: here a constant."""
        return self.words

    def forward(self, image: Tensor) -> Tensor:
        """Segment a batch of images (B x in_channels x H x W x D); returns logits, B x C x H x W x D."""
        reading = Reading(cast(BiPVLSeg, self), batch=image.shape[0])
        return self.backbone(image, reading.fuse)
