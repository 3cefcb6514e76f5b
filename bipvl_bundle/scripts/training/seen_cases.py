"""Which cases a model was trained on, without their names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence

from scripts.data.items import Item, case_of, images_of


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
