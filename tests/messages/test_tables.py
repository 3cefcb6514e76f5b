from __future__ import annotations

from scripts.messages.tables import aligned, markdown


def test_aligned_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned([["class", "n"], ["liver", "12"]]) == ["class   n", "liver  12"]


def test_markdown_has_a_line_for_each_row_and_escapes_borders() -> None:
    assert markdown(["a", "b"], [["1", "x|y"]]) == ["| a | b |", "| --- | --- |", r"| 1 | x\|y |"]
    assert markdown(["a", "b", "c"], [], numbers=True)[1] == "| --- | ---: | ---: |"
