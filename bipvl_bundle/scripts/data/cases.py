"""A case as MONAI's data sets have it, a dictionary: its name, patient and files, and what tells it from others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Hashable, Sequence
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


def loaded_from(volume: Any, key: Hashable) -> str:
    """The file that a volume was loaded from, by its metadata; where they do not say, its key in the case."""
    path = getattr(volume, "meta", {}).get("filename_or_obj")
    return str(path) if path else f"'{key}'"


def identities(item: Item) -> set[str]:
    """Its images, and its patient where one is named: what no other part of a data set should have too."""
    return {*images_of(item), *([f"patient '{item['patient']}'"] if "patient" in item else [])}


def fingerprints(items: Sequence[Item]) -> list[str]:
    """What tells cases apart: a hash of the case's name and of the sizes of its image files, sorted.

    The name alone would not do, as many data sets number their cases from 1. A checkpoint may be passed on, and a
    name may be a patient's.

    Args:
        items: as of `datalist`; without "case" the image's path is the name.

    Raises:
        OSError: an image is absent.
    """
    return sorted(map(fingerprint, items))


def fingerprint(item: Item) -> str:
    """Of one case; see `fingerprints`."""
    sizes = [os.path.getsize(path) for path in images_of(item)]
    return hashlib.sha256(f"{case_of(item)} {sizes}".encode()).hexdigest()[:16]


def require_unseen_by_model(trained_on: Collection[str], items: Sequence[Item], source: str) -> None:
    """Refuse to score a model on what it was trained on.

    Args:
        trained_on: fingerprints of the model's training cases.
        items: the cases to score.
        source: what to call the model.

    Raises:
        ValueError: a case was trained on.
    """
    if not trained_on:
        return
    seen = [case_of(item) for item in items if fingerprint(item) in trained_on]
    if seen:
        raise ValueError(
            f"{source} was trained on {len(seen)} of the {len(items)} cases to score, such as '{seen[0]}': the scores "
            "would say nothing about new cases. Set `fold`, `num_folds`, `seed` and `dataset_dir` to those of the "
            "training, or take that fold's model. To score them all the same: --load_weights#unseen []"
        )
