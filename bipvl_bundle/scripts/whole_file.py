"""Writing of files that are whole or absent, also with several writers; their rows and digests."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Context manager that yields a temporary path and moves it to ``path`` at the end of the block.

    Where the block fails, ``path`` is what it was and nothing is left beside it. The name is that of this process
    and ends like ``path``, for writers that go by the suffix.

    Raises:
        OSError: the file cannot be put in its place.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, into a folder that is there.

    Raises:
        OSError: the file cannot be written.
    """
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write at least one row as CSV, with the keys of the first as header, into an existing folder.

    Raises:
        OSError: the file cannot be written.
    """
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file that `write_rows` wrote; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digest_of(path: str | Path, kind: str = "sha256") -> str:
    """Return the digest of a file's content, in hexadecimal."""
    return hashlib.new(kind, Path(path).read_bytes()).hexdigest()
