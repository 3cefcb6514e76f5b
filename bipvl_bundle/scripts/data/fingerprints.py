"""Fingerprints of cases: hashes of what their image files hold, by which a model knows its training cases."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from scripts.data.cases import IMAGE_SUFFIXES, Item, case_of, images_of
from scripts.data.nifti import affine_in_mm, load_nifti

logger = logging.getLogger(__name__)

CONTENT = "content:"
"""Begins a fingerprint of the decoded content; one without it is of an older kind, of name and file size."""


def fingerprints(items: Sequence[Item], known: Collection[str] = ()) -> list[str]:
    """Return the sorted fingerprints of cases, with those that are known already; they contain no name.

    Args:
        items: as of `datalist`.
        known: fingerprints of other cases, such as those of a model that a training starts from.

    Raises:
        OSError: an image is absent.
        UnusableFile: it is damaged; see `load_nifti`.
    """
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return sorted({*known, *pool.map(fingerprint, items)})


def fingerprint(item: Item) -> str:
    """Return the hash of a case's grids and voxels, the same whatever the files' names, compression and data type."""
    hashes = [_content(path, *_state(path))[0] for path in images_of(item)]
    return CONTENT + hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]


def lowest_value(path: str) -> float:
    """Return a low value of an image, which one voxel in a hundred is below; NaN if it is no NIfTI file."""
    return _content(path, *_state(path))[1]


def _state(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=65536)  # a run asks for a case several times, and reads it once
def _content(path: str, modified: int, size: int) -> tuple[str, float]:
    """Return the hash of a file's shape, affine (to 0.001 mm) and voxels, and a low value.

    Of another file than NIfTI, the hash of its bytes.
    """
    found = hashlib.sha256()
    if not path.endswith(IMAGE_SUFFIXES):
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest(), float("nan")
    image = load_nifti(path)
    found.update(repr(image.shape).encode())
    found.update((np.round(affine_in_mm(image.header), 3) + 0.0).tobytes())  # + 0.0: no negative zero
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    found.update(voxels.tobytes(order="F"))
    return found.hexdigest(), float(np.quantile(voxels.ravel(order="K")[::11], 0.01))


def _older(item: Item) -> str:
    sizes = [os.path.getsize(path) for path in images_of(item)]
    return hashlib.sha256(f"{case_of(item)} {sizes}".encode()).hexdigest()[:16]


def is_among(item: Item, seen: Collection[str]) -> bool:
    """Return whether a case is one of those that fingerprints, of either kind, are of."""
    contents = any(entry.startswith(CONTENT) for entry in seen)
    names = any(not entry.startswith(CONTENT) for entry in seen)
    return (contents and fingerprint(item) in seen) or (names and _older(item) in seen)


def require_unseen_by_model(
    trained_on: Collection[str], items: Sequence[Item], source: str, option: str = "load_weights"
) -> None:
    """Raise an error if a case to score was among the training cases of the model.

    Args:
        trained_on: fingerprints of the model's training cases; without them the log says that nothing is known.
        items: the cases to score.
        source: what to call the model.
        option: of the configuration, by whose `unseen` the cases are given.

    Raises:
        ValueError: a case was trained on.
    """
    if not trained_on:
        if items:
            logger.warning("%s does not know its training cases: some of those to score may be among them.", source)
        return
    seen = [case_of(item) for item in items if is_among(item, trained_on)]
    if seen:
        raise ValueError(
            f"{source} was trained on {len(seen)} of the {len(items)} cases to score, such as '{seen[0]}': the scores "
            "would say nothing about new cases. Set `fold`, `num_folds`, `seed` and `dataset_dir` to those of the "
            f"training, or take that fold's model. To score them all the same: --{option}#unseen []"
        )
