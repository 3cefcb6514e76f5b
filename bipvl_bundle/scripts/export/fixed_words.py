"""A trained BiPVL-Seg with its words fixed, without the parts for training and other words."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.networks.reading import Reading
from scripts.networks.word_head import class_logits


class FixedWords(nn.Module):
    """Network that returns the logits of a ``BiPVLSeg`` in evaluation with its present words.

    What the text stages make of the words before any image is a constant of this network. Gone are the
    tokenizer, the word embeddings, those text stages, the class embedding and the projections. The weights
    that are left are shared with the given network, except those of the later text stages, which are copies.

    Args:
        network: is set to evaluation.
    """

    words: Tensor  # 1 x T x D, packed
    kernels: Tensor | None  # C x (C_f + 1), with the head "words"

    def __init__(self, network: BiPVLSeg) -> None:
        super().__init__()
        network.eval()
        self.backbone = network.backbone
        path = network.text_path
        encoder = copy.deepcopy(network.text_encoder)
        del encoder.embeddings
        for stage in range(path.stages_alone):
            encoder.stages[stage] = nn.ModuleList()
        self.text_encoder, self.fusions = encoder, path.fusions
        self.text_path = replace(path, encoder=encoder, read_alone=lambda: self.words)
        with torch.no_grad():
            self.register_buffer("words", network.read_alone().clone())
            self.register_buffer("kernels", network.class_kernels())
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Segment a batch of images (B x in_channels x H x W x D); returns logits, B x C x H x W x D."""
        output = self.backbone(image, Reading(self.text_path, batch=image.shape[0], to_the_end=False).fuse)
        return output if self.kernels is None else class_logits(output, self.kernels)
