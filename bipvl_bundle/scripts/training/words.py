"""What a training has to say about its words before it begins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from scripts.training.distributed import unwrap
from scripts.words.questions import QuestionSampler

logger = logging.getLogger(__name__)


def prepare_words(network: Any, swap: Sequence[str] | None = None) -> None:
    """Get a network ready to learn from its words: it remembers them, and centres its kernels on them.

    Warns of words that nobody has reviewed. To be a step of ``initialize`` in training, after a model to start from is
    loaded. A network without words, such as a backbone alone, passes.

    Args:
        network: its ``concepts``, if it has any, are the table that it reads.
        swap: the option of `load_concepts`.

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
    network.learn(table)
    if not table.reviewed and idist.get_rank() == 0:
        logger.warning(
            "UNREVIEWED WORDS: this training learns from %s, whose sentences nobody who knows the anatomy has "
            "checked. What they get wrong is learnt with them. Read every sentence, correct it, and set "
            "`reviewed: true` in that file.",
            table.source,
        )


class QuestionRamp:
    """Ignite handler that lets the questions of a training vary more and more; attach it to the trainer.

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
