"""Cases as dictionaries, as in MONAI's data sets: name, patient, files, and fingerprints to tell them apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Hashable, Sequence
from typing import Any

Item = dict[str, Any]
"""Key "image": a path, or a list with one path a channel; often "label" or "reference", "case", "patient", "fold"."""


def case_of(item: Item) -> str:
    """Return the name of a case, or its image if it has none."""
    return str(item.get("case", item["image"]))


def patient_of(item: Item) -> str:
    """Return the patient of a case, or the case itself if none is given."""
    return str(item.get("patient", case_of(item)))


def images_of(item: Item) -> list[str]:
    """Return the image files of a case: one, or one per channel."""
    return list(item["image"]) if isinstance(item["image"], list | tuple) else [item["image"]]


def files_of(item: Item) -> list[tuple[str, str]]:
    """Return all files of a case with their kind: "image", "label" or "reference"."""
    references = [(kind, item[kind]) for kind in ("label", "reference") if kind in item]
    return [*(("image", path) for path in images_of(item)), *references]


def loaded_from(volume: Any, key: Hashable) -> str:
    """Return the file that a volume was loaded from, by its metadata; where they do not say, its key in the case."""
    path = getattr(volume, "meta", {}).get("filename_or_obj")
    return str(path) if path else f"'{key}'"


def identities(item: Item) -> set[str]:
    """Return the images and the named patient of a case, which no other section of a data set may share."""
    return {*images_of(item), *([f"patient '{item['patient']}'"] if "patient" in item else [])}


def fingerprints(items: Sequence[Item]) -> list[str]:
    """Return sorted hashes of each case's name and the sizes of its image files, which contain no name.

    The name alone would not do, as many data sets number their cases from 1. A checkpoint may be passed on, and a
    name may be a patient's.

    Args:
        items: as of `datalist`; without "case" the image's path is the name.

    Raises:
        OSError: an image is absent.
    """
    return sorted(map(fingerprint, items))


def fingerprint(item: Item) -> str:
    """Return the fingerprint of one case; see `fingerprints`."""
    sizes = [os.path.getsize(path) for path in images_of(item)]
    return hashlib.sha256(f"{case_of(item)} {sizes}".encode()).hexdigest()[:16]


def require_unseen_by_model(trained_on: Collection[str], items: Sequence[Item], source: str) -> None:
    """Raise an error if a case to score was among the training cases of the model.

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
