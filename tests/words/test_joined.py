"""One table of the words of several data sets."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from scripts.words.joined import joined_table


@pytest.fixture
def other(table):
    """A table of MR with a class of the first one, in the same words, and one of its own."""
    return replace(
        table,
        modality="MR",
        classes=("Liver", "spleen"),
        sentences=(("A wedge.", "Top right."), ("A fist.", "Top left.")),
        source="other.yaml",
    )


def test_classes_follow_one_another_and_a_class_of_both_stands_once(table, other):
    joined = joined_table({"a": table, "b": other})
    assert joined.classes == ("right kidney", "left kidney", "liver", "spleen")
    assert joined.sentences == (*table.sentences, ("A fist.", "Top left."))
    assert joined.modality == "CT and MR"


def test_alternatives_and_codes_stay_with_their_classes(table, other):
    alternatives = ((("Bean.",), ()), ((), ()), ((), ()))
    joined = joined_table({"a": replace(table, alternatives=alternatives), "b": other})
    assert joined.alternatives == (*alternatives, ((), ()))
    reverse = joined_table({"b": other, "a": replace(table, alternatives=alternatives)})
    assert reverse.alternatives_of(reverse.classes.index("right kidney")) == (("Bean.",), ())


def test_is_reviewed_where_all_are(table, other):
    assert joined_table({"a": table, "b": other}).reviewed
    assert not joined_table({"a": table, "b": replace(other, reviewed=False)}).reviewed


def test_one_class_of_two_modalities_is_told(table, other, caplog):
    with caplog.at_level(logging.WARNING):
        joined_table({"a": table, "b": other})
    assert "'Liver' has the same words in 'a' (CT) and in 'b' (MR)" in caplog.text


def test_one_name_in_other_words_raises(table, other):
    changed = replace(other, sentences=(("A wedge.", "Somewhere."), other.sentences[1]))
    with pytest.raises(ValueError, match="'a' and 'b' both have a class 'Liver', described in other words"):
        joined_table({"a": table, "b": changed})


def test_one_class_under_two_names_raises(table, other):
    renamed = replace(other, classes=("hepar", "spleen"))
    with pytest.raises(ValueError, match="'liver' and 'hepar' have the same words"):
        joined_table({"a": table, "b": renamed})


def test_other_concepts_raise(table, other):
    with pytest.raises(ValueError, match=r"'b' \(other.yaml\) have the concepts location, those of 'a' "):
        joined_table({"a": table, "b": other.without("shape")})


def test_no_table_raises():
    with pytest.raises(ValueError, match="no data set to take words from"):
        joined_table({})
