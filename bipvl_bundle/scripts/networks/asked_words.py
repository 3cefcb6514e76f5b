"""Tokenised sentences of the classes to segment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.networks.packing import PackedSentences
from scripts.networks.text_encoder import StagedTextEncoder
from scripts.words.questions import Question
from scripts.words.sentences import same_sentences


class AskedWords(nn.Module):
    """Tokenised sentences of the n classes to segment, K each, and which of them are equal.

    Args:
        question: what is asked.
        encoder: whose tokens they are turned into.

    Attributes:
        sentences: all n * K of them, packed, class by class.
        classes: their n rows in the concept table.
        kept: True on the sentences that kernels are made of.  # n x K, bool
        same_sentence: True where classes i and j have the same sentence for concept k.  # n x n x K, bool
        mirrored: whether the image is to be mirrored.

    Raises:
        ValueError: a sentence is longer than the encoder reads.
    """

    kept: Tensor
    same_sentence: Tensor

    def __init__(self, question: Question, encoder: StagedTextEncoder) -> None:
        super().__init__()
        token_ids, mask = encoder.tokenize([sentence for row in question.sentences for sentence in row])
        self.sentences = PackedSentences(token_ids, mask)
        self.classes = question.classes
        self.mirrored = question.mirrored
        buffers = {
            "kept": torch.tensor(question.kept),
            "same_sentence": torch.as_tensor(same_sentences(question.sentences)),
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)
