from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from scripts.words.sentences import exchange_sides, same_sentences, shuffle_words
from scripts.words.table import ConceptTable

CONCEPTS = Path(__file__).resolve().parents[2] / "bipvl_bundle" / "configs" / "concepts"
ROWS = (
    ("Red ball, small.", "On the left (far off)."),
    ("Blue cube.", "on the left (far off)."),
    ("T1-weighted prostate/uterus; the patient's own.", "Above."),
)


def pool(rows: tuple[tuple[str, ...], ...]) -> Counter[str]:
    """The words of the different sentences, without what stands before or after them."""
    different = {sentence.casefold(): sentence for row in rows for sentence in row}
    return Counter(word.strip(".,;()") for sentence in different.values() for word in sentence.split())


def test_each_sentence_keeps_its_number_of_words_and_its_punctuation() -> None:
    for row, before in zip(shuffle_words(ROWS, 0), ROWS, strict=True):
        for sentence, old in zip(row, before, strict=True):
            ends = [(word[:1] in "(", word.rstrip(".,;()") != word) for word in sentence.split()]
            assert ends == [(word[:1] in "(", word.rstrip(".,;()") != word) for word in old.split()]


def test_the_words_stay_the_same_and_their_places_do_not() -> None:
    shuffled = shuffle_words(ROWS, 0)
    assert pool(shuffled) == pool(ROWS)
    assert {"T1-weighted", "prostate/uterus", "patient's"} <= set(pool(shuffled))
    assert shuffled[0] != ROWS[0]


def test_equal_sentences_stay_equal_and_different_ones_different() -> None:
    shuffled = shuffle_words(ROWS, 1)
    assert shuffled[0][1] == shuffled[1][1]
    assert len({sentence for row in shuffled for sentence in row}) == 5


def test_the_seed_decides() -> None:
    assert shuffle_words(ROWS, 4) == shuffle_words(ROWS, 4)
    assert shuffle_words(ROWS, 4) != shuffle_words(ROWS, 5)


@pytest.mark.parametrize("stem", ["amos22", "phantom"])
def test_a_shuffled_table_has_no_sentence_left_and_the_same_negatives(stem: str) -> None:
    table = ConceptTable.load(CONCEPTS / f"{stem}.yaml")
    shuffled = table.shuffled(0)
    assert not set(shuffled.sentences_flat) & set(table.sentences_flat)
    assert (shuffled.same_sentence() == table.same_sentence()).all()
    assert [len(s.split()) for s in shuffled.sentences_flat] == [len(s.split()) for s in table.sentences_flat]
    assert shuffled.classes == table.classes
    assert shuffled.digest != table.digest


@pytest.mark.parametrize(
    ("sentence", "mirrored"),
    [
        ("On the patient's left side.", "On the patient's right side."),
        ("Right of the midline, left-sided, LEFT.", "Left of the midline, right-sided, RIGHT."),
        ("Turned leftward, the rightmost.", "Turned rightward, the leftmost."),
        ("Bright cleft, upright.", "Bright cleft, upright."),
    ],
)
def test_sides_are_exchanged_where_they_are_words(sentence: str, mirrored: str) -> None:
    assert exchange_sides(sentence) == mirrored
    assert exchange_sides(mirrored) == sentence


def test_same_sentences_are_found_apart_from_case_and_spaces() -> None:
    same = same_sentences([["A  bean.", "Left."], ["a bean.", "Right."]])
    assert same.tolist() == [[[True, True], [True, False]], [[True, False], [True, True]]]
