"""Text tables: aligned for a terminal, or in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Rows = Sequence[Sequence[str]]


def aligned(rows: Rows) -> list[str]:
    """Return one line per row with columns as wide as their widest cell, the first left-aligned, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """Return the lines of a Markdown table; escapes "|" within cells.

    Args:
        head: the names of the columns.
        rows: as many cells each.
        numbers: whether all columns but the first are set to the right.
    """
    rule = ["---"] + ["---:" if numbers else "---"] * (len(head) - 1)
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in [head, rule, *rows]]
