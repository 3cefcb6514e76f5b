"""A case as MONAI's data sets have it, a dictionary, and how to read one."""

from __future__ import annotations

from typing import Any

Item = dict[str, Any]
"""Key "image": a path, or a list with one path a channel; often "label" or "reference", "case", "patient", "fold"."""


def case_of(item: Item) -> str:
    """The name of a case; where none is given, its image."""
    return str(item.get("case", item["image"]))


def patient_of(item: Item) -> str:
    """The patient of a case, the case itself where no other is given."""
    return str(item.get("patient", case_of(item)))


def images_of(item: Item) -> list[str]:
    """The files of a case's image: one, or one a channel."""
    return list(item["image"]) if isinstance(item["image"], list | tuple) else [item["image"]]


def files_of(item: Item) -> list[tuple[str, str]]:
    """All files of a case, with what each is: "image", "label" or "reference"."""
    references = [(kind, item[kind]) for kind in ("label", "reference") if kind in item]
    return [*(("image", path) for path in images_of(item)), *references]
