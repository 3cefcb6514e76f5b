"""Writing of concept tables as files that `ConceptTable.load` reads."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from scripts.whole_file import write_text
from scripts.words.table import ConceptTable


def write_table(table: ConceptTable, path: str | Path, note: str = "") -> None:
    """Write a table to a new YAML file, whole or not at all.

    Args:
        table: what to write.
        path: a file that does not exist; its folder is made.
        note: a comment for the top of the file, of any number of lines.

    Raises:
        FileExistsError: the file exists.
        OSError: it cannot be written.
    """
    path = Path(path)
    check_new_file(path)
    content = {
        "modality": table.modality,
        "reviewed": table.reviewed,
        "concepts": list(table.concepts),
        "classes": [_entry(table, position) for position in range(len(table.classes))],
    }
    comment = "".join(f"# {line}\n" for line in note.splitlines())
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, comment + text)


def check_new_file(path: str | Path) -> None:
    """Raise an error if a file exists or cannot be made.

    Raises:
        FileExistsError: there is such a file, or a file stands where its folder should be.
        PermissionError: its folder cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists and is not overwritten; move it away or name another output.")
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise FileExistsError(f"{path} cannot be written: {folder} is a file, not a folder; name another output.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path} cannot be written: no permission in {folder}; name another output.")


def _entry(table: ConceptTable, position: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": table.classes[position]}
    code = table.codes[position] if table.codes else None
    if code is not None:
        entry["code"] = {key: value for key, value in asdict(code).items() if value}
    return {**entry, **dict(zip(table.concepts, table.sentences[position], strict=True))}
