"""Cross-validation folds over the cases of a datalist."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

Item = dict[str, Any]


def fold_split(items: Sequence[Item], fold: int, num_folds: int, seed: int = 0) -> tuple[list[Item], list[Item]]:
    """The cases to train on and those to validate on when `fold` is held out.

    Raises:
        ValueError: `fold` is none of 0 .. num_folds - 1, or what `split_folds` raises.
    """
    folds = split_folds(items, num_folds, seed)
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold {fold} does not exist; with num_folds {num_folds} expected 0 to {num_folds - 1}.")
    training = [item for number, part in enumerate(folds) if number != fold for item in part]
    return sorted(training, key=_case), folds[fold]


def split_folds(items: Sequence[Item], num_folds: int, seed: int = 0) -> list[list[Item]]:
    """Deal the patients to folds whose numbers of patients differ by one at most.

    The result depends on the names of the cases and the seed alone, not on the order of `items`. Cases with
    the same key "patient" stay together; without it every case is a patient of its own. Where the items carry
    a key "fold", that is the split, and the seed is not used.

    Args:
        items: cases with unique "case" names.
        num_folds: at least 2.
        seed: what the patients are shuffled by.

    Returns:
        The cases of each fold, sorted by name.

    Raises:
        ValueError: fewer than two folds or fewer patients than folds; "fold" keys that only some items carry,
            that lie outside 0 .. num_folds - 1, that part a patient, or that leave a fold empty.
    """
    if num_folds < 2:
        raise ValueError(f"num_folds is {num_folds}; expected 2 or more, to have cases to validate on.")
    by_name = sorted(items, key=_case)
    patients = sorted({_patient(item) for item in by_name})
    if len(patients) < num_folds:
        raise ValueError(
            f"{len(patients)} patients cannot be dealt to {num_folds} folds; lower num_folds or add cases."
        )
    if any("fold" in item for item in by_name):
        fold_of = _explicit_folds(by_name, num_folds)
    else:
        fold_of = {patient: n % num_folds for n, patient in enumerate(sorted(patients, key=_shuffled(seed)))}
    return [[item for item in by_name if fold_of[_patient(item)] == fold] for fold in range(num_folds)]


def _explicit_folds(items: Sequence[Item], num_folds: int) -> dict[str, int]:
    fold_of: dict[str, int] = {}
    for item in items:
        fold = item.get("fold")
        if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < num_folds:
            raise ValueError(
                f"Case '{item['case']}' has fold {fold!r}; expected a number from 0 to {num_folds - 1} in "
                "every entry of the datalist, or in none. Correct the datalist or num_folds."
            )
        if fold_of.setdefault(_patient(item), fold) != fold:
            raise ValueError(
                f"Patient '{_patient(item)}' is in folds {fold_of[_patient(item)]} and {fold}; expected one."
            )
    empty = sorted(set(range(num_folds)) - set(fold_of.values()))
    if empty:
        raise ValueError(f"The datalist's 'fold' keys leave fold {empty[0]} of {num_folds} empty; correct num_folds.")
    return fold_of


def _shuffled(seed: int) -> Callable[[str], str]:
    """A sort key that shuffles names: a hash, which no version of a random generator can change."""
    return lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _case(item: Item) -> str:
    return str(item["case"])


def _patient(item: Item) -> str:
    return str(item.get("patient", item["case"]))
