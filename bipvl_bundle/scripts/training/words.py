"""What a training has to say about its words before it begins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist

from scripts.training.distributed import unwrap

logger = logging.getLogger(__name__)


def check_training_words(network: Any, swap: Sequence[str] | None = None) -> None:
    """Warn that a network learns from words that nobody has reviewed; refuse to train on swapped ones.

    To be a step of ``initialize`` in training. A network without words, such as a backbone alone, passes.

    Args:
        network: its ``concepts``, if it has any, are the table that it reads.
        swap: the option of `load_concepts`.

    Raises:
        ValueError: ``swap`` is set. It is a question to a trained network, and the folder that the run would
            write to is that network's.
    """
    table = getattr(unwrap(network), "concepts", None)
    if table is None:
        return
    if swap is not None:
        raise ValueError(
            f"`swap` {list(swap)} exchanges the words of two classes for a network that is trained already; training "
            "would overwrite its checkpoint. Leave `swap` at null here, and set it in evaluation or inference."
        )
    if not table.reviewed and idist.get_rank() == 0:
        logger.warning(
            "UNREVIEWED WORDS: this training learns from %s, whose sentences nobody who knows the anatomy has "
            "checked. What they get wrong is learnt with them. Read every sentence, correct it, and set "
            "`reviewed: true` in that file.",
            table.source,
        )
