"""Handlers and checks about the words of a training: questions that vary, unreviewed tables, collapsed alignment."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from scripts.networks.wrapping import unwrap
from scripts.words.questions import QuestionSampler

logger = logging.getLogger(__name__)

SIDES = {"train_cosine_text": "texts", "train_cosine_vision": "image features"}


def prepare_words(network: Any, swap: Sequence[str] | None = None, questions: QuestionSampler | None = None) -> None:
    """Prepare a network for training on its words: it remembers them and centres its kernels on them.

    Warns of words that nobody has reviewed. To be a step of ``initialize`` in training, after a model to start from is
    loaded. A network without words, such as a backbone alone, passes.

    Args:
        network: its ``concepts``, if it has any, are the table that it reads.
        swap: the option of `load_concepts`.
        questions: draws what each training step asks for.

    Raises:
        ValueError: ``swap`` is set. It is a question to a trained network, and the folder that the run would
            write to is that network's.
    """
    network = unwrap(network)
    table = getattr(network, "concepts", None)
    if table is None:
        return
    if swap is not None:
        raise ValueError(
            f"`swap` {list(swap)} exchanges the words of two classes for a network that is trained already; training "
            "would overwrite its checkpoint. Leave `swap` at null here, and set it in evaluation or inference."
        )
    network.learn(table, questions)
    if not table.reviewed and idist.get_rank() == 0:
        logger.warning(
            "UNREVIEWED WORDS: this training learns from %s, whose sentences nobody who knows the anatomy has "
            "checked. What they get wrong is learnt with them. Read every sentence, correct it, and set "
            "`reviewed: true` in that file.",
            table.source,
        )


def require_partial_labels(network: Any) -> None:
    """Raise an error unless a network can learn from cases that label some of the classes only.

    Raises:
        ValueError: its ``forward`` takes no ``labelled``.
    """
    network = unwrap(network)
    if "labelled" not in inspect.signature(network.forward).parameters:
        raise ValueError(
            f"{type(network).__name__} cannot learn from several data sets that label different classes: it would take "
            "what one of them does not label for background. Train BiPVLSeg on them, or this network on one data set."
        )


class QuestionRamp:
    """Ignite handler that raises the probabilities of varied questions over epochs; attach it to the trainer.

    A network that meets all variations from its first step learns slowly: their ``strength`` rises over the first part
    of the epochs, from nearly 0 in the first one to 1.

    Args:
        questions: draws the questions.
        share: of the epochs, in which the strength rises; 0 begins with all of it.

    Raises:
        ValueError: a share below 0 or above 1.
    """

    def __init__(self, questions: QuestionSampler, share: float = 0.33) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"`share` is a part of the epochs, from 0 to 1; found {share}.")
        self.questions = questions
        self.share = share

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        rising = self.share * (engine.state.max_epochs or 1)
        self.questions.strength = min(1.0, engine.state.epoch / rising) if rising >= 1 else 1.0


class WarnOfCollapse:
    """Ignite handler that warns in the epoch in which the alignment collapses; attach it to the trainer.

    A collapse shows nowhere else: the other losses go on falling and the DSC goes on rising without the words.

    Reads the means of the epoch that ``LossTerms`` leaves in ``engine.state.metrics``, so it is attached after it.
    Without an alignment loss there is nothing to warn of.

    Args:
        limit: mean cosine between the embeddings of different classes above which they count as one.
        forming: share of the epochs in which an alignment that was never there yet is not missed.
    """

    def __init__(self, limit: float = 0.98, forming: float = 0.2) -> None:
        self.limit = limit
        self.forming = forming
        self.collapsed = False
        self.was_there = False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        metrics = engine.state.metrics
        alike = [f"{side} ({metrics[name]:.3f})" for name, side in SIDES.items() if metrics.get(name, 0.0) > self.limit]
        self.was_there = self.was_there or not alike
        if not self.was_there and engine.state.epoch <= self.forming * (engine.state.max_epochs or 0):
            return
        if alike and not self.collapsed:
            logger.warning(
                "Epoch %s: the alignment has collapsed. Different classes have the same %s (mean cosine): the words no "
                "longer tell them apart, although the segmentation may go on improving. If it stays so, start again "
                "with a lower `learning_rate` or `text_learning_rate`; see docs/method.md, Watching for collapse.",
                engine.state.epoch,
                " and ".join(alike),
            )
        if self.collapsed and not alike:
            logger.info("Epoch %s: the alignment is back, with an embedding for each class.", engine.state.epoch)
        self.collapsed = bool(alike)
