"""Files that are whole or not there, also where several processes write the same one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; what is there at the end of the block takes the place of ``path``.

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
