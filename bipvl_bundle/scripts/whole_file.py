"""Writing of files that are whole or absent, also with several writers; their rows and digests."""

from __future__ import annotations

import csv
import hashlib
import os
import platform
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"
"""How the names of files begin that are being written; the machine's code, the process and a number follow."""
LONGEST = 120
"""Letters of a file's name, counted from its end, that the partial file's name has too."""
ABANDONED = 86400
"""Seconds without a change after which a partial file of another machine is taken for one of a killed process."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Context manager that yields a temporary path and moves it to ``path`` at the end of the block.

    Where the block fails, ``path`` is what it was and nothing is left beside it. The name is this call's own, also
    among threads and machines, and ends like ``path``, for writers that go by the suffix. What killed processes have
    left in the folder is removed.

    Raises:
        OSError: the file cannot be put in its place.
    """
    _clear_remains(path.parent.absolute())
    partial = partial_name(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            partial.unlink()


def partial_name(path: Path) -> Path:
    """Return a path beside ``path`` that no other writer of any process, thread or machine uses."""
    return path.with_name(f"{PARTIAL}{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name[-LONGEST:]}")


@cache
def _machine() -> str:
    """Return a code of this machine, or of the container that numbers its own processes."""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:
        processes = ""
    return hashlib.sha256(f"{platform.node()} {processes}".encode()).hexdigest()[:8]


@cache  # once a process: a folder may hold thousands of files
def _clear_remains(folder: Path) -> None:
    """Remove partial files of killed processes: of this machine, or of another one if they are old."""
    for remains in folder.glob(f"{PARTIAL}*"):
        machine, owner, *_ = [*remains.name.removeprefix(PARTIAL).split("-"), "", ""]
        with suppress(OSError):
            if machine == _machine() and owner.isdigit():
                abandoned = not _is_running(int(owner))
            else:
                abandoned = time.time() - remains.stat().st_mtime > ABANDONED
            if abandoned:
                remains.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


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
