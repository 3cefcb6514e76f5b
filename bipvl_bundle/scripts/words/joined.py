"""One concept table of several, for a network that learns from several data sets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from scripts.words.checks import normalised
from scripts.words.table import ConceptTable

logger = logging.getLogger(__name__)


def joined_table(tables: Mapping[str, ConceptTable]) -> ConceptTable:
    """Return the table of all classes of several data sets; a class that two of them have in the same words is one.

    Args:
        tables: by data set, whose classes keep their order, one data set after the other.

    Raises:
        ValueError: there is no table; they have other concepts; a class has other words in another data set; two
            classes of different names have the same words. The message names class and data sets.
    """
    if not tables:
        raise ValueError("There is no data set to take words from; list one at least.")
    (first_name, joined), *others = tables.items()
    owner = {normalised(name): first_name for name in joined.classes}
    for data_set, table in others:
        _check_concepts(first_name, joined, data_set, table)
        known = dict(zip(map(normalised, joined.classes), joined.sentences, strict=True))
        for name, row in zip(table.classes, table.sentences, strict=True):
            if normalised(name) in known:
                _check_same_class(name, (owner[normalised(name)], known[normalised(name)]), (data_set, row), tables)
        new = [name for name in table.classes if normalised(name) not in known]
        owner |= {normalised(name): data_set for name in new}
        joined = _extended(joined, table.only(new)) if new else joined
    joined = replace(joined, modality=" and ".join(dict.fromkeys(table.modality for table in tables.values())))
    joined = replace(
        joined,
        source=" + ".join(dict.fromkeys(table.source for table in tables.values())),
        reviewed=all(table.reviewed for table in tables.values()),
    )
    joined.check_told_apart()
    return joined


def _extended(table: ConceptTable, other: ConceptTable) -> ConceptTable:
    classes, further = range(len(table.classes)), range(len(other.classes))
    alternatives = (*map(table.alternatives_of, classes), *map(other.alternatives_of, further))
    codes = (*(table.codes or [None for _ in classes]), *(other.codes or [None for _ in further]))
    return replace(
        table,
        classes=table.classes + other.classes,
        sentences=table.sentences + other.sentences,
        codes=codes if any(codes) else (),
        alternatives=alternatives if any(any(row) for row in alternatives) else (),
    )


def _check_concepts(first_name: str, first: ConceptTable, data_set: str, table: ConceptTable) -> None:
    if table.concepts != first.concepts:
        raise ValueError(
            f"The words of '{data_set}' ({table.source}) have the concepts {', '.join(table.concepts)}, those of "
            f"'{first_name}' ({first.source}) {', '.join(first.concepts)}; data sets that are learnt together need the "
            "same ones, in one order."
        )


def _check_same_class(
    name: str,
    one: tuple[str, tuple[str, ...]],
    other: tuple[str, tuple[str, ...]],
    tables: Mapping[str, ConceptTable],
) -> None:
    """Check that a class of one name in two data sets is one class; warn where it is seen in two modalities."""
    (first, row), (second, words) = one, other
    if list(map(normalised, row)) != list(map(normalised, words)):
        raise ValueError(
            f"'{first}' and '{second}' both have a class '{name}', described in other words: {tables[first].source} "
            f"and {tables[second].source}. If they are one class, give it the same words in both; if not, give it "
            "another name in one of them."
        )
    modalities = tables[first].modality, tables[second].modality
    if modalities[0] != modalities[1]:
        logger.warning(
            "'%s' has the same words in '%s' (%s) and in '%s' (%s), and is learnt as one class from both.",
            name,
            first,
            modalities[0],
            second,
            modalities[1],
        )
