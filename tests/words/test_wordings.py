"""In how many ways a table's classes are described to see whether a model reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scripts.words.table import ConceptTable
from scripts.words.wordings import Wording, wordings


@pytest.fixture
def found(table: ConceptTable) -> dict[str, Wording]:
    others = ((("Bean.",), ()), ((), ()), ((), ("Up right.", "High right.")))
    return {wording.name: wording for wording in wordings(replace(table, alternatives=others))}


def test_right_words_come_first_and_mean_their_own_classes(found: dict[str, Wording], table: ConceptTable) -> None:
    name, right = next(iter(found.items()))
    assert (name, right.kind, right.meant) == ("right words", "right", (0, 1, 2))
    assert right.table.sentences == table.sentences


def test_all_are_there(found: dict[str, Wording]) -> None:
    assert list(found) == [
        "right words",
        "alternatives",
        "right kidney and left kidney exchanged",
        "every class in the next one's words",
        "meaningless words",
        "shape alone",
        "location alone",
        "without shape",
        "without location",
    ]


def test_alternatives_replace_the_sentences_that_have_some(found: dict[str, Wording]) -> None:
    assert found["alternatives"].table.sentences == (
        ("Bean.", "On the right."),
        ("A bean.", "On the left."),
        ("A wedge.", "Up right."),
    )


def test_exchanged_words_mean_the_other_side(found: dict[str, Wording], table: ConceptTable) -> None:
    wording = found["right kidney and left kidney exchanged"]
    assert wording.meant == (1, 0, 2)
    assert wording.table.sentences == tuple(table.sentences[row] for row in wording.meant)


def test_words_of_the_next_class_mean_it(found: dict[str, Wording], table: ConceptTable) -> None:
    wording = found["every class in the next one's words"]
    assert wording.meant == (1, 2, 0)
    assert wording.table.sentences == tuple(table.sentences[row] for row in wording.meant)


def test_single_concepts_and_all_but_one(found: dict[str, Wording]) -> None:
    assert found["location alone"].table.concepts == found["without shape"].table.concepts == ("location",)


def test_a_table_of_one_class_and_one_concept_has_nothing_to_exchange(table: ConceptTable) -> None:
    small = table.only(["liver"]).only_concept("shape")
    assert [wording.name for wording in wordings(small)] == ["right words", "meaningless words"]
