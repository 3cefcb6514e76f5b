"""Splits of cases into folds, or into training, validation and test, by patient and seed."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from scripts.data.cases import Item, case_of, identities, images_of, patient_of

TRAINING = "training"
"""Key "fold" of a case that is never held out."""


def fold_split(items: Sequence[Item], fold: int, num_folds: int, seed: int = 0) -> tuple[list[Item], list[Item]]:
    """Return the cases to train on and those to validate on when `fold` is held out.

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
    """Split cases into folds by patient; the numbers of patients differ by one at most.

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
            f"{len(patients)} patients cannot be split into {num_folds} folds; lower num_folds or add cases."
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
    """Return a sort key that shuffles names by a hash, which no version of a random generator can change."""
    return lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def with_folds(training: Sequence[Item], num_folds: int, seed: int) -> list[Item]:
    """Return the cases sorted by name, with their fold in `split_folds` under the key "fold"."""
    folds = split_folds(training, num_folds, seed)
    return sorted(({**item, "fold": number} for number, part in enumerate(folds) for item in part), key=case_of)


def with_fixed_split(learnt: Sequence[Item], held_out: Sequence[Item]) -> list[Item]:
    """Return all cases with a fixed split: fold "training" to train on, fold 0 to validate on."""
    marked = [{**item, "fold": TRAINING} for item in learnt] + [{**item, "fold": 0} for item in held_out]
    return sorted(marked, key=case_of)


def split_by_size(items: Sequence[Item], sizes: Sequence[int], seed: int) -> list[list[Item]]:
    """Split cases into parts of exactly `sizes` cases by patient, each sorted by case name.

    The result depends on the names and the seed alone. The patients come in shuffled order, and each goes to the
    last part that has room for it.

    Raises:
        ValueError: the sizes do not add up to the cases, or cannot be met without parting a patient.
    """
    if sum(sizes) != len(items) or min(sizes) < 0:
        raise ValueError(
            f"The split {'/'.join(map(str, sizes))} adds up to {sum(sizes)} cases, but there are {len(items)}. "
            "Complete the data set, or give sizes of your own by `split`."
        )
    cases_of: dict[str, list[Item]] = {}
    for item in sorted(items, key=case_of):
        cases_of.setdefault(patient_of(item), []).append(item)
    parts: list[list[Item]] = [[] for _ in sizes]
    for patient in sorted(cases_of, key=shuffle_key(seed)):
        cases = cases_of[patient]
        room = [i for i, size in enumerate(sizes) if len(parts[i]) + len(cases) <= size]
        if not room:
            raise ValueError(
                f"The split {'/'.join(map(str, sizes))} cannot be met without parting a patient: there is no room left "
                f"for the {len(cases)} cases of patient '{patient}'. Take other sizes or another seed."
            )
        parts[room[-1]] += cases
    return [sorted(part, key=case_of) for part in parts]


def with_patients(items: Sequence[Item], table: str | Path) -> list[Item]:
    """Add the key "patient" to the cases from a CSV file with the columns case and patient.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a case is listed twice with two patients, or a case is not listed.
    """
    path = Path(table)
    if not path.is_file():
        raise FileNotFoundError(f"There is no table of patients '{path}'; expected a CSV file: case,patient.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"case", "patient"} <= set(reader.fieldnames or ()):
            raise ValueError(f"'{path}' has the columns {reader.fieldnames}; expected case and patient.")
        patients: dict[str, str] = {}
        for row in reader:
            if patients.setdefault(row["case"], row["patient"]) != row["patient"]:
                raise ValueError(f"'{path}' gives case '{row['case']}' two patients; expected one.")
    missing = sorted(str(item["case"]) for item in items if not patients.get(str(item["case"])))
    if missing:
        raise ValueError(f"'{path}' has no patient for {len(missing)} case(s), such as '{missing[0]}'; add them.")
    return [{**item, "patient": patients[str(item["case"])]} for item in items]


def require_apart(training: Sequence[Item], test: Sequence[Item]) -> None:
    """Raise a ValueError if two lists share a patient or a case."""
    shared = sorted({patient_of(item) for item in training} & {patient_of(item) for item in test})
    if shared:
        raise ValueError(
            f"{len(shared)} patient(s) or case(s), such as '{shared[0]}', are in training and test; a test on them "
            "would tell nothing. Take them out of one."
        )


def require_unseen(training: Sequence[Item], test: Sequence[Item]) -> None:
    """Raise a ValueError if two sections of a datalist share an image or a named patient.

    Unlike `require_apart` this does not compare the names of the cases, which two folders may both number from 1.
    """
    seen = set().union(*map(identities, training))
    shared = sorted(str(item["case"]) for item in test if identities(item) & seen)
    if shared:
        raise ValueError(
            f"{len(shared)} case(s) of the section 'test', such as '{shared[0]}', are of an image or a patient that is "
            "also in 'training': scores on them would tell nothing. Take them out of one."
        )
