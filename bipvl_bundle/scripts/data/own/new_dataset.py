"""The command `new_dataset`: describes a folder of images and a folder of labels in three text files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.data.cases import Item
from scripts.data.datalist import datalist_entry
from scripts.data.own.dataset_files import datalist_text, known_words, table_text, target_paths, write_together
from scripts.data.own.file_matching import MatchedCase, match_files, match_images
from scripts.data.own.nnunet_folder import read_nnunet_folder
from scripts.data.own.suggestions import DatasetPlan, overlay_text
from scripts.data.own.survey import Survey, survey
from scripts.data.splits import with_folds
from scripts.words.checks import PLACEHOLDER, check_names, check_text


def new_dataset(
    name: str,
    images: str,
    labels: str | None = None,
    classes: str | Sequence[str] = (),
    modality: str | None = None,
    *,
    label_values: int | Sequence[Any] = (),
    channels: str | Sequence[str] = (),
    patient_pattern: str | None = None,
    test_images: str | None = None,
    test_labels: str | None = None,
    num_folds: int = 3,
    seed: int = 0,
    sample: int = 20,
    relative_paths: bool = False,
    bundle_root: str = ".",
    progress: bool = True,
) -> list[Path]:
    """Describe your own data set: writes its overlay, its datalist with folds, and a concept table to fill in.

    Writes `configs/dataset_<name>.yaml`, `data/<name>/dataset.json` and `configs/concepts/<name>.yaml` in the
    bundle's folder: all three or none, and never over an existing file. The volumes stay where they are. The cases
    are split into folds once, by patient, and the folds are written down, so that neither the seed of a training
    nor a case that is added later changes them.

    Args:
        name: name of the data set: letters, digits and underscores.
        images: folder of the images, NIfTI; subfolders are read too. Or, without `labels`, a data set folder of
            nnU-Net, whose dataset.json tells the rest.
        labels: folder of the label maps, may be the same folder; paired with the images by name.
        classes: the foreground classes in the order of their labels 1 to N, as a list or separated by commas.
        modality: "CT", "MR" or another, as it stands in a sentence.
        label_values: label values in the files, class by class, if they are not 1 to N. Lists of values make
            regions that may overlap: [[1, 2, 3], [2, 3], [3]].
        channels: endings of a case's channel files, in channel order, if not nnU-Net's _0000, _0001.
        patient_pattern: regular expression that finds the patient in a case name, as its first group or whole
            match; cases of one patient stay in one fold.
        test_images: folder of test images.
        test_labels: folder of test labels.
        num_folds: number of folds of the cross-validation.
        seed: seed of the split into folds.
        sample: number of cases whose voxels are read, for the intensity window and the label values.
        relative_paths: write paths relative to the datalist, for data that moves together with the bundle.
        bundle_root: the bundle's folder.
        progress: show progress bars.

    Raises:
        ValueError: files without a partner (they are named), files that cannot be read, values in the labels
            that no class has, too few patients, or an invalid name, class, modality or pattern.
        FileNotFoundError: a folder is absent or without NIfTI files, or `bundle_root` is no bundle.
        FileExistsError: one of the three files exists.
    """
    root = Path(bundle_root)
    targets = target_paths(root, str(name))
    if labels is None:
        of_nnunet = read_nnunet_folder(Path(images))
        images, labels = str(of_nnunet.images), str(of_nnunet.labels)
        classes, label_values = classes or of_nnunet.classes, label_values or _if_needed(of_nnunet.label_values)
        modality = modality or of_nnunet.modality
        test_images = test_images or _text(of_nnunet.test_images)
        test_labels = test_labels or (_text(of_nnunet.test_labels) if test_images else None)
    if modality is None:
        raise ValueError(f'The images of {name} need a modality: "CT", "MR" or another, as it stands in a sentence.')
    plan = DatasetPlan(str(name), _names("classes", classes), str(modality), num_folds, _values(label_values))
    check_names(plan.classes, "class", f"new_dataset {name}")
    check_text(plan.modality, f"new_dataset {name}: modality")
    if plan.label_values and len(plan.label_values) != len(plan.classes):
        raise ValueError(f"{len(plan.label_values)} label_values for {len(plan.classes)} classes; expected as many.")
    endings = _names("channels", channels)
    cases, how = match_files(Path(images), Path(labels), endings)
    test = _test_cases(test_images, test_labels, cases, endings)
    training_items = [_item(case, patient_pattern) for case in cases]
    test_items = [_item(case, patient_pattern) for case in test]
    _require_apart(training_items, test_items)
    training_items = with_folds(training_items, num_folds, seed)
    found = survey(cases, sample=sample, progress=progress)
    _check_labels(plan, found)
    folder = targets[1].parent if relative_paths else None
    entries = {
        "training": [datalist_entry(item, folder) for item in training_items],
        "test": [datalist_entry(item, folder) for item in test_items],
    }
    datalist = datalist_text(plan.name, plan.modality, entries)
    texts = (
        overlay_text(plan, found),
        datalist,
        table_text(plan.classes, plan.modality, known_words(root / "configs" / "concepts", plan.modality)),
    )
    write_together(dict(zip(targets, texts, strict=True)))
    _print_summary(cases, len(test), how, [os.path.relpath(path, root) for path in targets])
    return targets


def _if_needed(values: Sequence[int | list[int]]) -> Sequence[int | list[int]]:
    return () if list(values) == list(range(1, len(values) + 1)) else values


def _text(path: Path | None) -> str | None:
    return str(path) if path else None


def _names(what: str, given: str | Sequence[str]) -> list[str]:
    if not isinstance(given, Sequence):
        raise ValueError(f"{what} is {given!r}; expected names between commas.")
    parts = given.split(",") if isinstance(given, str) else [str(part) for part in given]
    return [" ".join(part.split()) for part in parts if part.strip()]


def _values(given: int | Sequence[Any]) -> list[Any]:
    """Return label values as lists for YAML; the command line turns a list of one into a value."""
    values = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    lists = [list(value) if isinstance(value, list | tuple) else value for value in values]
    for value in (v for part in lists for v in (part if isinstance(part, list) else [part])):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"label_values are {given!r}; expected whole numbers, or lists of them: [[1, 2, 3], [3]].")
    return lists


def _test_cases(
    images: str | None, labels: str | None, training: Sequence[MatchedCase], channels: Sequence[str]
) -> list[MatchedCase]:
    if images is None:
        if labels is not None:
            raise ValueError("test_labels need test_images beside them.")
        return []
    if labels is not None:
        return match_files(Path(images), Path(labels), channels)[0]
    return match_images(Path(images), channels, split_channels=len(training[0].images) > 1)


def _item(case: MatchedCase, patient_pattern: str | None) -> Item:
    item: Item = {"case": case.name, "image": case.images, "label": case.label}
    if patient_pattern is None:
        return item
    try:
        found = re.search(patient_pattern, case.name)
    except re.error as error:
        raise ValueError(f"patient_pattern '{patient_pattern}' is no regular expression: {error}.") from error
    if found is None:
        raise ValueError(f"patient_pattern '{patient_pattern}' finds no patient in the name of case '{case.name}'.")
    return {**item, "patient": found[1] if found.re.groups else found[0]}


def _require_apart(training: Sequence[Item], test: Sequence[Item]) -> None:
    for key in ("case", "patient"):
        shared = {str(item[key]) for item in training if key in item} & {str(item[key]) for item in test if key in item}
        if shared:
            raise ValueError(
                f"{key} '{min(shared)}' is among the training and the test images; expected {key}s of their own in "
                "either. Rename the files or move them away, or correct patient_pattern."
            )


def _check_labels(plan: DatasetPlan, found: Survey) -> None:
    regions, count = found.label_channels > 1, len(plan.classes)
    if regions and (found.label_channels != count or plan.label_values):
        raise ValueError(
            f"The labels have {found.label_channels} channels; expected one channel with the numbers of the {count} "
            "classes, or one channel of zeros and ones for each class, without label_values."
        )
    values = plan.label_values or ([1] if regions else list(range(1, count + 1)))
    known = {0} | {v for value in values for v in (value if isinstance(value, list) else [value])}
    unknown = [f"{value:g}" for value in found.label_values if value not in known]
    if unknown:
        raise ValueError(
            f"The labels hold the values {', '.join(unknown[:20])}, for which there is no class: expected "
            f"{', '.join(map(str, sorted(known)))}. Name all classes in the order of their labels, give the values "
            "themselves by label_values, or correct the labels."
        )


def _print_summary(cases: Sequence[MatchedCase], num_test: int, how: str, written: Sequence[str]) -> None:
    overlay, datalist, table = written
    files = f"\"['configs/train.yaml','{overlay}']\""
    print(f"{len(cases)} labelled cases and {num_test} test cases, matched {how}; for example")
    for case in cases[:2]:
        print(f"  {case.name}: {' + '.join(path.name for path in case.images)} with {case.label and case.label.name}")
    print(f"\nWritten:\n  {overlay}\n  {datalist}\n  {table}\n")
    print(f"Next, in the bundle's folder:\n  1. edit {table}: write every sentence that is marked {PLACEHOLDER}")
    print(f"  2. read {overlay}: spacing, roi_size, intensity and flips are suggestions")
    print(f"  3. python -m scripts.cli check_data --config_file {files}")
    print(f"  4. python -m monai.bundle run training --config_file {files}")
