from __future__ import annotations

import pytest

from scripts.report.choice import mean_dice, most_different, typical_cases


def rows(**dice: list[float]) -> list[dict[str, str]]:
    return [{"case": case, "dice": str(value)} for case, values in dice.items() for value in values]


def test_absent_classes_do_not_count() -> None:
    assert mean_dice(rows(a=[0.5, 1.0, float("nan")], b=[float("nan")])) == {"a": 0.75}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"a": 0.1, "b": 0.9, "c": 0.5}, {"b": "best", "c": "median", "a": "worst"}),
        ({"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.4}, {"b": "best", "d": "median", "a": "worst"}),
        ({"a": 0.5, "b": 0.5, "c": 0.5}, {"a": "best", "b": "median", "c": "worst"}),
        ({"a": 0.1, "b": 0.9}, {"b": "best", "a": "worst"}),
        ({"a": 0.1}, {"a": "only case"}),
        ({}, {}),
    ],
)
def test_typical_cases_are_chosen_by_rank(scores: dict[str, float], expected: dict[str, str]) -> None:
    assert typical_cases(scores) == expected
    assert list(typical_cases(scores)) == list(expected)


def test_largest_difference_comes_first_whoever_is_better() -> None:
    assert most_different({"a": 0.9, "b": 0.5, "c": 0.1}, {"a": 0.8, "b": 0.9, "d": 0.0}, 2) == ["b", "a"]
