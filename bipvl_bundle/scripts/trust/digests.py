"""Digests that detect damaged files: within a model file, and beside the files of a folder.

A model file of PyTorch is a zip archive, whose checksums PyTorch does not read. The digest of all its bytes stands
in the archive's comment, at the end of the file: no reader of model files sees it, no copy loses it, and whatever
writes the file anew leaves it out.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile, ZipFile

SUMS = "SHA256SUMS"
"""The file with the digests of a folder's files, as the command sha256sum writes and checks it."""

_END = struct.Struct("<4s4H2LH")  # the last record of a zip archive, after which its comment follows
_SIGNATURE = b"PK\x05\x06"
_MARK = b"sha256:"
_LENGTH = len(_MARK) + 64
_SUM = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def add_digest(path: Path) -> str:
    """Write the digest of a zip archive into its comment and return it in hexadecimal.

    Raises:
        ValueError: it is no zip archive, or has a comment.
    """
    with path.open("r+b") as file:
        file.seek(-min(_END.size, path.stat().st_size), os.SEEK_END)
        end = file.read()
        if len(end) < _END.size or _END.unpack(end)[0] != _SIGNATURE or _END.unpack(end)[-1]:
            raise ValueError(f"'{path}' is no zip archive without a comment, as PyTorch writes them.")
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", _LENGTH))
    digest = _digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(_MARK + digest.encode())
    return digest


def check_digest(path: Path) -> str | None:
    """Compare a file with the digest that it carries and return that, in hexadecimal; None without one.

    Raises:
        ValueError: the file has changed since.
    """
    comment = _comment(path)
    if not comment:
        return None
    carried = comment.removeprefix(_MARK).decode("ascii", "replace") if comment.startswith(_MARK) else "none"
    found = _digest(path, path.stat().st_size - len(comment))
    if carried != found:
        raise ValueError(
            f"'{path}' is damaged: it carries the SHA-256 {carried[:12]}... and has {found[:12]}.... Take a fresh copy."
        )
    return found


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS with the digests of all files of a folder."""
    lines = [f"{_digest(path)}  {path.name}\n" for path in _files(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> bool:
    """Compare the files of a folder with its SHA256SUMS; returns whether there is one.

    Raises:
        ValueError: a file has changed since, or is absent.
    """
    sums = folder / SUMS
    if not sums.is_file():
        return False
    for line in sums.read_text(encoding="utf-8").splitlines():
        entry = _SUM.fullmatch(line)
        path = folder / Path(entry[2]).name if entry else None
        if entry is None or path is None or not path.is_file() or _digest(path) != entry[1]:
            what = f"'{path}' is absent or not what was written" if path else f"'{sums}' has the line {line!r}"
            raise ValueError(
                f"{what}; '{SUMS}' has the digests of the files. Take a fresh copy of '{folder}', or delete that file "
                "if the change is meant."
            )
    return True


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)


def _comment(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(_LENGTH, path.stat().st_size), os.SEEK_END)
        end = file.read()
    if end.startswith(_MARK):
        return end
    try:
        with ZipFile(path) as archive:  # a comment whose mark is damaged
            return archive.comment
    except (BadZipFile, OSError, ValueError, NotImplementedError):
        return b""


def _digest(path: Path, size: int | None = None) -> str:
    """Return the digest of a file or of its first bytes."""
    digest, left = hashlib.sha256(), path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
