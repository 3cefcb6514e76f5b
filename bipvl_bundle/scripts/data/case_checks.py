"""Checks of the cases of a list: each once, its files there, and no file in two places."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from scripts.data.cases import Item, files_of, images_of, patient_of
from scripts.trust.plain import require_text

__all__ = ["require_files", "require_own_files", "require_unique"]


def require_own_files(items: Sequence[Item], where: str) -> None:
    """Raise an error if a file is both image and label, or the image of two cases that folds may part."""
    labels = {item["label"] for item in items if "label" in item}
    owners: dict[str, Item] = {}
    for item in items:
        for file in images_of(item):
            if file in labels:
                raise ValueError(f"{where} has '{file}' as an image and as a label. Correct one of the two.")
            other = owners.setdefault(file, item)
            if other is not item and patient_of(other) != patient_of(item):
                raise ValueError(
                    f"{where} has the image '{file}' twice, as the cases '{other['case']}' and '{item['case']}', of "
                    "which one could be learnt from and the other scored. Remove one, or give both the same 'patient'."
                )


def require_files(path: Path, section: str, items: list[Item]) -> None:
    """Raise an error if a file of a case of a datalist's section is absent."""
    missing = []
    for index, item in enumerate(items):
        missing += [(index, item["case"], kind, file) for kind, file in files_of(item) if not os.path.isfile(file)]
    if missing:
        index, case, kind, file = missing[0]
        raise FileNotFoundError(
            f"{len(missing)} of the files in section '{section}' of '{path}' are absent. The first: entry "
            f"{index} (case '{case}') names the {kind} '{file}'. Complete the download, or correct the path "
            "or remove the entry; relative paths are relative to the JSON file."
        )


def require_unique(items: list[Item], where: str) -> list[Item]:
    """Return the items; raise a ValueError if two of them are one case, or a name has control characters."""
    seen: dict[str, Item] = {}
    for item in items:
        require_text(item["case"], f"The name of a case in {where}")
        if item["case"] in seen:
            first = seen[item["case"]]["image"]
            others = (
                "" if first == item["image"] else ", rename the file, or give the entries a key 'case' in a datalist"
            )
            raise ValueError(
                f"Case '{item['case']}' is twice in {where}: {first} and {item['image']}. Expected every case once: "
                f"remove one{others}."
            )
        seen[item["case"]] = item
    return items
