from __future__ import annotations

import pytest

from scripts.messages.phrases import by, byte_size, duration, first_lines, root_cause, some


def test_some_names_and_how_many_more() -> None:
    assert some(["a", "b"], most=2) == "a, b"
    assert some("abcd", most=2) == "a, b and 2 more"
    assert some([]) == ""


def test_a_size_keeps_whole_numbers_and_four_digits_of_others() -> None:
    assert by([64, 32, 110592]) == "64 x 32 x 110592"
    assert by([1.5, 2.0, 0.703125], "x") == "1.5x2x0.7031"


@pytest.mark.parametrize(("size", "text"), [(123_456, "0.123 MB"), (999e6, "999 MB"), (16e9, "16 GB")])
def test_bytes(size: float, text: str) -> None:
    assert byte_size(size) == text


def test_first_lines_of_an_error() -> None:
    error = RuntimeError("\n  one\n\ntwo\nthree")
    assert first_lines(error) == "one"
    assert first_lines(error, 2) == "one two ..."
    assert first_lines(error, 3) == "one two three"
    assert first_lines(ValueError()) == "ValueError"


def test_root_cause_is_what_was_raised_first() -> None:
    first, outer = ValueError("first"), RuntimeError("outer")
    outer.__cause__ = RuntimeError("middle")
    outer.__cause__.__cause__ = first
    assert root_cause(outer) is first
    assert root_cause(first) is first


@pytest.mark.parametrize(("seconds", "said"), [(59.4, "59 s"), (61, "1 min 01 s"), (3 * 3600 + 65, "3 h 01 min")])
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
