"""Tables of text: aligned for a terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Rows = Sequence[Sequence[str]]


def aligned(rows: Rows) -> list[str]:
    """One line a row, columns as wide as their widest cell, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """The lines of a table in Markdown, in which a "|" within a cell is no border.

    Args:
        head: the names of the columns.
        rows: as many cells each.
        numbers: whether all columns but the first are set to the right.
    """
    rule = ["---"] + ["---:" if numbers else "---"] * (len(head) - 1)
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in [head, rule, *rows]]
