from __future__ import annotations

from typing import Any

import pytest

from scripts.words.questions import Question
from scripts.words.requested import requested_table
from scripts.words.table import ConceptTable


def test_nothing_asked_for_is_the_table_itself(table: ConceptTable) -> None:
    assert requested_table(table) is table
    same = {"liver": {"shape": "A wedge."}}
    assert requested_table(table, same, ["right kidney", "left kidney", "liver"]) is table


def test_other_sentences_of_a_known_class(table: ConceptTable) -> None:
    found = requested_table(table, {"Liver": {"shape": "A disc."}})
    assert found.classes == table.classes
    assert found.sentences[2] == ("A disc.", "Top right.")
    assert not found.reviewed


def test_further_classes_follow_those_of_the_table(table: ConceptTable) -> None:
    found = requested_table(table, {"spleen": {"location": "Top  left."}, "x": "shape: A disc.; location: Below."})
    assert found.classes == (*table.classes, "spleen", "x")
    assert found.sentences[4] == ("A disc.", "Below.")


def test_a_concept_that_is_not_given_counts_as_left_out(table: ConceptTable) -> None:
    found = requested_table(table, {"spleen": {"location": "Top left."}, "x": "A disc."}, ["x", "liver", "spleen"])
    assert found.classes == ("x", "liver", "spleen")
    assert Question.whole(found).kept == ((True, False), (True, True), (True, False))
    assert found.sentences[2] == ("Top left.", "Top left.")


@pytest.mark.parametrize(
    ("words", "classes", "message"),
    [
        (["liver"], None, r"Other words are \['liver'\]; expected"),
        ({"spleen": {}}, None, "'spleen' is none of right kidney, left kidney, liver and has no words"),
        ({"spleen": 7}, None, "The words of 'spleen' are 7"),
        ({"spleen": {"colour": "Red."}}, None, "no concept 'colour'"),
        ({"spleen": {"shape": ""}}, None, "'shape' is empty"),
        ({"spleen": {"shape": "$1"}}, None, "begins with"),
        ({"background": {"shape": "A disc."}}, None, "background"),
        ({"liver": {"shape": "A bean.", "location": "On the left."}}, None, "'left kidney' and 'liver' have the same"),
        (None, [], "at least one class"),
        (None, "liver", "at least one class"),
        (None, ["spleen"], "asks for 'spleen', which has no words"),
        (None, ["liver", "liver"], "duplicate class"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(table: ConceptTable, words: Any, classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        requested_table(table, words, classes)
