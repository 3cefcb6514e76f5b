"""Cross-validation folds over the cases of a datalist."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from scripts.data.items import Item, case_of, images_of, patient_of

TRAINING = "training"
"""Key "fold" of a case that is never held out."""


def fold_split(items: Sequence[Item], fold: int, num_folds: int, seed: int = 0) -> tuple[list[Item], list[Item]]:
    """The cases to train on and those to validate on when `fold` is held out.

    Raises:
        ValueError: `fold` is none of 0 .. num_folds - 1, or what `split_folds` raises.
    """
    folds = split_folds(items, num_folds, seed)
    require_fold(fold, num_folds)
    held_out = {case_of(item) for item in folds[fold]}
    training = [item for item in items if case_of(item) not in held_out]
    return sorted(training, key=case_of), folds[fold]


def require_fold(fold: int, num_folds: int) -> None:
    """Raise a ValueError if there is no such fold."""
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold {fold} does not exist; with num_folds {num_folds} expected 0 to {num_folds - 1}.")


def split_folds(items: Sequence[Item], num_folds: int, seed: int = 0) -> list[list[Item]]:
    """Deal the patients to folds whose numbers of patients differ by one at most.

    The result depends on the names of the cases and the seed alone, not on the order of `items`. Cases with
    the same key "patient" stay together; without it every case is a patient of its own. Where the items carry
    a key "fold", that is the split, and the seed is not used: the number of the fold, or "training" for a case
    that is never held out. A fixed split into training and validation is thus one fold, number 0, beside cases
    of "training".

    Args:
        items: cases with unique "case" names.
        num_folds: at least 2; with "fold" keys 1 is enough.
        seed: what the patients are shuffled by.

    Returns:
        The cases of each fold, sorted by name.

    Raises:
        ValueError: two items are one case; fewer than two folds or fewer patients than folds; "fold" keys that
            only some items carry, that are neither "training" nor in 0 .. num_folds - 1, that part a patient,
            or that leave a fold empty or nothing to train on; one image in two folds, under two names.
    """
    by_name = sorted(items, key=case_of)
    _require_distinct(by_name)
    if num_folds < (1 if any("fold" in item for item in by_name) else 2):
        raise ValueError(f"num_folds is {num_folds}; expected 2 or more, to have cases to validate on.")
    patients = sorted({patient_of(item) for item in by_name})
    if len(patients) < num_folds:
        raise ValueError(
            f"{len(patients)} patients cannot be dealt to {num_folds} folds; lower num_folds or add cases."
        )
    if any("fold" in item for item in by_name):
        fold_of = _explicit_folds(by_name, num_folds)
    else:
        fold_of = {patient: n % num_folds for n, patient in enumerate(sorted(patients, key=shuffle_key(seed)))}
    _require_one_fold_an_image(by_name, fold_of)
    return [[item for item in by_name if fold_of[patient_of(item)] == fold] for fold in range(num_folds)]


def _require_distinct(by_name: Sequence[Item]) -> None:
    for one, other in pairwise(by_name):
        if case_of(one) == case_of(other):
            folds = f", in the folds {one['fold']!r} and {other.get('fold')!r}" if "fold" in one else ""
            raise ValueError(f"Case '{case_of(one)}' is listed twice{folds}; expected every case once, in one fold.")


def _require_one_fold_an_image(items: Sequence[Item], fold_of: Mapping[str, int | str]) -> None:
    first: dict[str, Item] = {}
    for item in items:
        for image in images_of(item):
            other = first.setdefault(image, item)
            here, there = fold_of[patient_of(item)], fold_of[patient_of(other)]
            if here != there:
                raise ValueError(
                    f"Cases '{case_of(other)}' and '{case_of(item)}' are one image, '{image}', in the folds {there} "
                    f"and {here}; expected every image in one fold. Remove one of the two, or give both one "
                    "'patient' and one fold."
                )


def _explicit_folds(items: Sequence[Item], num_folds: int) -> dict[str, int | str]:
    fold_of: dict[str, int | str] = {}
    for item in items:
        fold = item.get("fold")
        if fold != TRAINING and (isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < num_folds):
            raise ValueError(
                f"Case '{item['case']}' has fold {fold!r}; expected a number from 0 to {num_folds - 1}, or "
                f"'{TRAINING}' for a case that is never held out, in every entry of the datalist, or no fold in any. "
                "Correct the datalist or num_folds."
            )
        if fold_of.setdefault(patient_of(item), fold) != fold:
            raise ValueError(
                f"Patient '{patient_of(item)}' is in folds {fold_of[patient_of(item)]} and {fold}; expected one."
            )
    used = set(fold_of.values())
    empty = sorted(number for number in range(num_folds) if number not in used)
    if empty:
        raise ValueError(f"The datalist's 'fold' keys leave fold {empty[0]} of {num_folds} empty; correct num_folds.")
    if len(used) == 1:
        raise ValueError(
            "Every case of the datalist is in fold 0 and none is left to train on; give the cases to train on "
            f"the fold '{TRAINING}', or another number."
        )
    return fold_of


def shuffle_key(seed: int) -> Callable[[str], str]:
    """A sort key that shuffles names: a hash, which no version of a random generator can change."""
    return lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
