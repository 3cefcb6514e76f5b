"""Wordings of a reading test: the right words, and others in their place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

from scripts.words.checks import normalised
from scripts.words.sentences import exchange_sides
from scripts.words.table import ConceptTable


@dataclass(frozen=True)
class Wording:
    """One description of the classes of a data set.

    Attributes:
        name: as it is shown to a user.
        kind: "right", "alternatives", "exchanged", "meaningless", "others", "only" or "without".
        table: the words.
        meant: for each class of the table, the row of the class whose words it has; of one without a class's words, its
            own.
    """

    name: str
    kind: str
    table: ConceptTable
    meant: tuple[int, ...]


def wordings(table: ConceptTable, shuffle_seed: int = 1) -> list[Wording]:
    """Return all wordings of a table for the reading test, the right words first.

    - the alternatives of its sentences, the first ones, where it has any;
    - for each two classes that differ by left and right, their words exchanged;
    - the words of each class given to the next, where there are at least two;
    - words without a meaning;
    - each concept alone, and each left out, where there are at least two.
    """
    rows = tuple(range(len(table.classes)))
    found = [Wording("right words", "right", table, rows)]
    if any(others for row in rows for others in table.alternatives_of(row)):
        found.append(Wording("alternatives", "alternatives", _alternative(table), rows))
    for first, second in _pairs(table):
        meant = list(rows)
        meant[first], meant[second] = second, first
        names = table.classes[first], table.classes[second]
        found.append(Wording(f"{names[0]} and {names[1]} exchanged", "exchanged", table.swapped(*names), tuple(meant)))
    if len(rows) > 1:
        found.append(_shifted(table))
    found.append(Wording("meaningless words", "meaningless", table.shuffled(shuffle_seed), rows))
    if len(table.concepts) > 1:
        found += [Wording(f"{concept} alone", "only", table.only_concept(concept), rows) for concept in table.concepts]
        found += [Wording(f"without {concept}", "without", table.without(concept), rows) for concept in table.concepts]
    return found


def _alternative(table: ConceptTable) -> ConceptTable:
    sentences = tuple(
        tuple(others[0] if others else sentence for sentence, others in zip(*pair, strict=True))
        for pair in zip(table.sentences, table.alternatives, strict=True)
    )
    return replace(table, sentences=sentences)


def _shifted(table: ConceptTable) -> Wording:
    rows = tuple(range(len(table.classes)))
    meant = rows[1:] + rows[:1]
    sentences = tuple(table.sentences[row] for row in meant)
    words = replace(table, sentences=sentences, alternatives=())
    return Wording("every class in the next one's words", "others", words, meant)


def _pairs(table: ConceptTable) -> list[tuple[int, int]]:
    """Return pairs of classes whose names differ by left and right alone."""
    names = [normalised(name) for name in table.classes]
    both = combinations(range(len(names)), 2)
    return [(i, j) for i, j in both if names[i] != names[j] and exchange_sides(names[i]) == names[j]]
