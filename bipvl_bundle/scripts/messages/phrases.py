"""Phrases of messages: lists of names, sizes, first lines of errors."""

from __future__ import annotations

from collections.abc import Iterable


def some(names: Iterable[object], most: int = 5) -> str:
    """Join the first names by commas and say how many more there are."""
    shown = [str(name) for name in names]
    left_out = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {left_out} more" if left_out > 0 else "")


def by(lengths: Iterable[float], sign: str = " x ") -> str:
    """Format a size as "64 x 64 x 32"; fractions to four digits."""
    return sign.join(f"{length:.4g}" if isinstance(length, float) else str(length) for length in lengths)


def byte_size(size: float) -> str:
    """Format a number of bytes in MB or GB."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def duration(seconds: float) -> str:
    """Format a time in hours and minutes, minutes and seconds, or seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def first_lines(error: BaseException, most: int = 1) -> str:
    """Return the first non-empty lines of an error's message as one, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(line[:300] for line in lines[:most]) + (" ..." if len(lines) > most > 1 else "")


def root_cause(error: BaseException) -> BaseException:
    """Return the error behind those raised from it; monai.bundle wraps the errors of a configuration."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
