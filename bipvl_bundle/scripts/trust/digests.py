"""Digests that detect damaged files: within a model file, and beside the files of a folder.

A model file of PyTorch is a zip archive, whose checksums PyTorch does not read. The digest of all other bytes stands
at the end of the file, as the archive's comment; at the end of an ONNX file it is one more of the model's properties.
No reader of such files minds it, no copy loses it, and whatever writes the file anew leaves it out.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path

SUMS = "SHA256SUMS"
"""The file with the digests of a folder's files, as the command sha256sum writes and checks it."""

_END = struct.Struct("<4s4H2LH")  # the last record of a zip archive, after which its comment follows
_SIGNATURE = b"PK\x05\x06"
_COMMENT = b"sha256:"
_PROPERTY = b"\x72\x4a\x0a\x06sha256\x12\x40"  # field 14 of ModelProto, {key: sha256, value: 64 bytes}
_HEXADECIMAL = re.compile(rb"[0-9a-f]{64}")
_SUM = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def add_digest(path: Path) -> str:
    """Write the digest of a model file at its end: of a zip archive as PyTorch writes it, or of an .onnx file.

    Returns:
        the digest, in hexadecimal

    Raises:
        ValueError: it is no zip archive, or has a comment.
    """
    if path.suffix != ".onnx":
        _announce_comment(path)
    digest = _digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(_mark(path) + digest.encode())
    return digest


def check_digest(path: Path) -> str | None:
    """Compare a file with the digest that it carries and return that, in hexadecimal; None without one.

    Raises:
        ValueError: the file has changed since.
    """
    mark, size = _mark(path), path.stat().st_size
    with path.open("rb") as file:
        file.seek(-min(_END.size + len(mark) + 64, size), os.SEEK_END)
        end = file.read()
    carried, found = end[-64:].decode("ascii", "replace"), None
    if end[:-64].endswith(mark):
        found = _digest(path, size - len(mark) - 64)
    elif not _claims_digest(end, mark):
        return None
    if carried != found:
        has = f"has {found[:12]}..." if found else "its end has changed"
        raise ValueError(f"'{path}' is damaged: it carries the SHA-256 {carried[:12]}... and {has}. Take a fresh copy.")
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


def _mark(path: Path) -> bytes:
    return _PROPERTY if path.suffix == ".onnx" else _COMMENT


def _claims_digest(end: bytes, mark: bytes) -> bool:
    """Whether the end of a file has a part of a digest: its mark, its letters, or the length of a comment."""
    record = end.rfind(_SIGNATURE)
    announced = record >= 0 and any(end[record + _END.size - 2 : record + _END.size])
    return mark in end or bool(_HEXADECIMAL.search(end)) or announced


def _announce_comment(path: Path) -> None:
    """Write the length of the comment into the end of a zip archive that has none."""
    with path.open("r+b") as file:
        file.seek(-min(_END.size, path.stat().st_size), os.SEEK_END)
        end = file.read()
        if len(end) < _END.size or _END.unpack(end)[0] != _SIGNATURE or _END.unpack(end)[-1]:
            raise ValueError(f"'{path}' is no zip archive without a comment, as PyTorch writes them.")
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", len(_COMMENT) + 64))


def _digest(path: Path, size: int | None = None) -> str:
    """Return the digest of a file or of its first bytes."""
    digest, left = hashlib.sha256(), path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
