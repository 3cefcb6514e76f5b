"""Cases to training, validation and test, by patient and by a seed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from scripts.data.folds import TRAINING, shuffle_key, split_folds
from scripts.data.items import Item, images_of, patient_of


def with_folds(training: Sequence[Item], num_folds: int, seed: int) -> list[Item]:
    """The cases with the number of their fold, as `split_folds` deals them, under the key "fold"."""
    folds = split_folds(training, num_folds, seed)
    dealt = [{**item, "fold": number} for number, part in enumerate(folds) for item in part]
    return sorted(dealt, key=lambda item: str(item["case"]))


def with_fixed_split(learnt: Sequence[Item], held_out: Sequence[Item]) -> list[Item]:
    """All cases: those to train on with the fold "training", those to validate on with 0, the one fold."""
    dealt = [{**item, "fold": TRAINING} for item in learnt] + [{**item, "fold": 0} for item in held_out]
    return sorted(dealt, key=lambda item: str(item["case"]))


def deal(items: Sequence[Item], sizes: Sequence[int], seed: int) -> list[list[Item]]:
    """Parts of exactly `sizes` cases, no patient in two of them, each sorted by the name of the case.

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
    for item in sorted(items, key=lambda item: str(item["case"])):
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
    return [sorted(part, key=lambda item: str(item["case"])) for part in parts]


def with_patients(items: Sequence[Item], table: str | Path) -> list[Item]:
    """The cases with the key "patient" from a CSV file with the columns case and patient.

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
    """Raise a ValueError if a patient, or a case, is in both."""
    shared = sorted({patient_of(item) for item in training} & {patient_of(item) for item in test})
    if shared:
        raise ValueError(
            f"{len(shared)} patient(s) or case(s), such as '{shared[0]}', are in training and test; a test on them "
            "would tell nothing. Take them out of one."
        )


def require_unseen(training: Sequence[Item], test: Sequence[Item]) -> None:
    """Raise a ValueError if an image, or a patient that is named, is in both sections of a datalist.

    Unlike `require_apart` this does not compare the names of the cases, which two folders may both number from 1.
    """

    def identities(item: Item) -> set[str]:
        return {*images_of(item), *([f"patient '{item['patient']}'"] if "patient" in item else [])}

    seen = set().union(*map(identities, training))
    shared = sorted(str(item["case"]) for item in test if identities(item) & seen)
    if shared:
        raise ValueError(
            f"{len(shared)} case(s) of the section 'test', such as '{shared[0]}', are of an image or a patient that is "
            "also in 'training': scores on them would tell nothing. Take them out of one."
        )
