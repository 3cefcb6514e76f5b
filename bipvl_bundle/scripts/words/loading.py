"""Concept table of a configuration: a file, a request's words, and what ablations change."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.words.checks import check_pair, check_seed
from scripts.words.lines import Words
from scripts.words.requested import requested_table
from scripts.words.table import ConceptTable

logger = logging.getLogger(__name__)


def load_concepts(
    path: str | Path,
    text_format: str = "fixed",
    *,
    leave_out: str | None = None,
    shuffle_seed: int | None = None,
    swap: Sequence[str] | None = None,
    words: Mapping[str, Words] | None = None,
    classes: Sequence[str] | None = None,
) -> ConceptTable:
    """Load the table of a file in one of the formats of Table 2, for a configuration; see `ConceptTable`.

    The options change it in the order in which they are listed here: the first two for a request, the others for
    ablations. What puts wrong words to a class is logged.

    Args:
        path: the table's file.
        words: other sentences, or further classes; see `requested_table`.
        classes: those to be segmented, in this order; see `requested_table`.
        leave_out: a concept to do without, before the format is made of the rest.
        text_format: one of ``FORMATS``.
        shuffle_seed: shuffles all words at random by this seed.
        swap: two classes whose words are exchanged, in a trained model: one that reads finds each of the two where the
            other is described.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no concept table, or an option does not fit it.
    """
    table = requested_table(ConceptTable.load(path), words, classes)
    if leave_out is not None:
        if text_format == "name":
            raise ValueError(
                f"`leave_out` ({leave_out!r}) changes nothing where `text_format` is 'name': no concept is read. "
                "Set one of them back to its default."
            )
        table = table.without(leave_out)
    table = table.as_format(text_format)
    if shuffle_seed is not None:
        table = table.shuffled(check_seed(shuffle_seed))
        logger.warning("The words of %s are shuffled at random (`shuffle_seed` %d).", table.source, shuffle_seed)
    if swap is not None:
        first, second = check_pair(swap)
        table = table.swapped(first, second)
        logger.warning("The words of '%s' and '%s' in %s are exchanged (`swap`).", first, second, table.source)
    return table
