"""Tokenised sentences of the classes to segment."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from scripts.networks.packing import PackedSentences
from scripts.networks.text_encoder import StagedTextEncoder
from scripts.words.questions import Question
from scripts.words.sentences import same_sentences
from scripts.words.table import ConceptTable

logger = logging.getLogger(__name__)

UNKNOWN_SHARE = 0.5  # of the words of a class, above which a text encoder is said not to know them


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


def warn_of_unknown_words(table: ConceptTable, encoder: StagedTextEncoder) -> None:
    """Warn of classes described in words that the text encoder does not know, as in another language."""
    for name, row in zip(table.classes, table.sentences, strict=True):
        share = encoder.unknown_share(row)
        if share > UNKNOWN_SHARE:
            logger.warning(
                "The text encoder '%s' does not know %.0f%% of the words of '%s', as in '%s'. They say nothing to it: "
                "write them in its language, or choose another `text_encoder`.",
                encoder.checkpoint,
                100 * share,
                name,
                row[0],
            )
