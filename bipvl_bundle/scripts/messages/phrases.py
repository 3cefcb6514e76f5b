"""Short phrases of messages: some of many names, sizes, the first lines of an error."""

from __future__ import annotations

from collections.abc import Iterable


def some(names: Iterable[object], most: int = 5) -> str:
    """The first names between commas, and how many more there are."""
    shown = [str(name) for name in names]
    left_out = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {left_out} more" if left_out > 0 else "")


def by(lengths: Iterable[float], sign: str = " x ") -> str:
    """A size, as in "64 x 64 x 32"; fractions to four digits."""
    return sign.join(f"{length:.4g}" if isinstance(length, float) else str(length) for length in lengths)


def byte_size(size: float) -> str:
    """A number of bytes, in MB or GB."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def first_lines(error: BaseException, most: int = 1) -> str:
    """The first lines of an error's message that are not empty, as one; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(line[:300] for line in lines[:most]) + (" ..." if len(lines) > most > 1 else "")


def root_cause(error: BaseException) -> BaseException:
    """The error behind those that were raised from it; monai.bundle wraps what a configuration raises."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
