"""The command `datalist`: writes the datalist of a public data set, with its split."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.data.cases import Item
from scripts.data.datalist import PathLike, datalist_entry, load_datalist
from scripts.data.public.layouts import OfficialCases, amos22, mmwhs_ct, mmwhs_mr, msd, msd_brain
from scripts.data.splits import (
    TRAINING,
    require_apart,
    split_by_size,
    with_fixed_split,
    with_folds,
    with_patients,
)
from scripts.trust.plain import require_plain
from scripts.whole_file import whole_file

LAYOUTS: Mapping[str, Callable[[Path], OfficialCases]] = {
    "amos22": amos22,
    "mmwhs_ct": mmwhs_ct,
    "mmwhs_mr": mmwhs_mr,
    "msd_brain": msd_brain,
    "msd": msd,
}
"""What the command line calls them; see the functions for the folders that they expect."""

PAPER_SPLITS = {"msd_brain": "349/39/96"}
"""Sizes of training, validation and test in section 7.1 where the data set itself has no test section."""


def make_datalist(
    layout: str,
    source: str,
    output: str | None = None,
    *,
    split: str | Sequence[int] | None = None,
    num_folds: int | None = None,
    seed: int = 0,
    patients: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the datalist of a public data set from its official folder; nothing is copied or moved.

    Training cases are written to the section "training" with their fold, so that the seed of a training does not
    change the split; labelled test cases to the section "test". Without `split` the data set's own sections are kept
    and the training cases are split into `num_folds` folds; msd_brain is split by the paper's 349/39/96.

    Args:
        layout: amos22, mmwhs_ct, mmwhs_mr, msd_brain, or msd for any other task of the Decathlon.
        source: the unpacked folder, such as amos22 or Task01_BrainTumour.
        output: the datalist; by default datalist_<layout>.json in the source's folder.
        split: "349/39/96", the numbers of training, validation and test cases: one fixed split, to be run with
            num_folds 1. Or "388/96", training and test: the training cases are split into folds. The numbers must
            add up to the cases.
        num_folds: number of folds of the cross-validation, by default 3; not with a split that has validation cases.
        seed: seed of the split.
        patients: CSV file with the columns case and patient, to keep a patient's cases together; without it each
            case counts as a patient, since the official files name none.
        overwrite: replace an existing datalist.

    Raises:
        ValueError: an unknown layout, a split that cannot be met, or files that do not fit the layout.
        FileNotFoundError: a folder or file of the layout is missing; the message names it and what was found.
        FileExistsError: the output exists, or is the data set's own dataset.json.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"There is no layout '{layout}'; expected one of {', '.join(LAYOUTS)}.")
    root = Path(os.path.abspath(Path(source).expanduser()))
    target = Path(os.path.abspath(Path(output).expanduser())) if output else root / f"datalist_{layout}.json"
    cases = LAYOUTS[layout](root)
    if patients is not None:
        cases = _identified(cases, patients)
    sizes = _sizes(PAPER_SPLITS.get(layout) if split is None else split)
    training, test = _partition(cases, sizes, num_folds, seed)
    require_apart(training, test)
    content = _content(cases, layout, training, test, target.parent if target.is_relative_to(root) else None)
    require_plain(content, f"'{target}', as it would be,")
    _write(target, content, root / "dataset.json", overwrite)
    _print_summary(target, cases, training, test)
    return target


def _identified(cases: OfficialCases, table: str) -> OfficialCases:
    training, test = with_patients(cases.training, table), with_patients(cases.test, table)
    return OfficialCases(cases.name, cases.modality, cases.labels, training, test, cases.complete)


def _sizes(split: str | Sequence[int] | None) -> list[int] | None:
    if split is None:
        return None
    parts = list(split) if isinstance(split, Sequence) and not isinstance(split, str) else str(split).split("/")
    if len(parts) not in (2, 3) or not all(str(part).strip().isdecimal() for part in parts):
        raise ValueError(
            f"The split is {split!r}; expected numbers of cases: training/validation/test such as 349/39/96, or "
            "training/test such as 388/96."
        )
    sizes = [int(part) for part in parts]
    if min(sizes[:-1]) < 1:
        raise ValueError(f"The split {'/'.join(map(str, sizes))} leaves nothing to train or to validate on.")
    return sizes


def _partition(
    cases: OfficialCases, sizes: Sequence[int] | None, num_folds: int | None, seed: int
) -> tuple[list[Item], list[Item]]:
    if sizes is not None and len(sizes) == 3 and num_folds not in (None, 1):
        raise ValueError(
            f"The split {'/'.join(map(str, sizes))} names the cases to validate on, which is one fold; num_folds is "
            f"{num_folds}. Give training/test alone to make folds, or leave num_folds out."
        )
    num_folds = 3 if num_folds is None else num_folds
    if sizes is None:
        return with_folds(cases.training, num_folds, seed), cases.test
    if not cases.test:
        *parts, test = split_by_size(cases.training, sizes, seed)
    elif len(cases.test) == sizes[-1]:
        parts, test = split_by_size(cases.training, sizes[:-1], seed), cases.test
    else:
        raise ValueError(
            f"{cases.name} has {len(cases.test)} test cases of its own; expected that as the last number of the split, "
            f"found {sizes[-1]}. Its training cases ({len(cases.training)}) can be split."
        )
    return (with_folds(parts[0], num_folds, seed) if len(parts) == 1 else with_fixed_split(*parts)), test


def _content(
    cases: OfficialCases, layout: str, training: Sequence[Item], test: Sequence[Item], folder: Path | None
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": cases.name,
        "description": f"Made from the official folder by the layout '{layout}'.",
        "modality": dict(cases.modality),
        "labels": dict(cases.labels),
        "numTraining": len(training),
        "numTest": len(test),
        "training": [datalist_entry(item, folder) for item in training],
    }
    return content | ({"test": [datalist_entry(item, folder) for item in test]} if test else {})


def _write(target: Path, content: Mapping[str, Any], official: Path, overwrite: bool) -> None:
    """Write the datalist whole or not at all, after reading it back."""
    if target == official:
        raise FileExistsError(f"'{target}' is the data set's own; give the datalist another name.")
    text = json.dumps(content, indent=1) + "\n"
    if target.exists() and not overwrite:
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            return
        raise FileExistsError(
            f"'{target}' is there already and differs; nothing was written. Give `output` another name, or `overwrite`."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as partial:
        partial.write_text(text, encoding="utf-8")
        _read_back(partial, content)


def _read_back(path: PathLike, content: Mapping[str, Any]) -> None:
    for section in ("training", "test"):
        if section in content:
            load_datalist(path, section)


def _print_summary(target: Path, cases: OfficialCases, training: Sequence[Item], test: Sequence[Item]) -> None:
    counts = Counter(item["fold"] for item in training)
    fixed = counts.pop(TRAINING, 0)
    numbers = [str(counts[fold]) for fold in sorted(counts)]
    how = f"{fixed} to train, {numbers[0]} to validate on (num_folds 1)" if fixed else f"folds of {', '.join(numbers)}"
    print(f"{cases.name}: {len(training)} training cases, {how}; {len(test)} test cases")
    if cases.complete is not None and sum(cases.complete) != len(training) + len(test):
        whole = " + ".join(str(count) for count in cases.complete if count)
        print(f"Mind that the whole release has {whole} labelled cases: is the download complete?")
    print(f"written: {target}")
