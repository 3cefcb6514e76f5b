"""Datalists: reads a Decathlon `dataset.json` into MONAI's list of dictionaries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.data.case_checks import require_files, require_own_files, require_unique
from scripts.data.cases import IMAGE_SUFFIXES, Item, images_of
from scripts.data.label_names import check_label_names
from scripts.data.splits import fold_split, require_unseen
from scripts.trust.parsing import read_mapping
from scripts.trust.plain import require_name, require_plain

PathLike = str | os.PathLike[str]

_KEPT = ("fold", "patient")


def load_datalist(
    dataset_dir: PathLike, section: str = "training", labelled: bool | None = True, *, must_exist: bool = True
) -> list[Item]:
    """Load the entries of one section of a datalist in the Medical Segmentation Decathlon's format.

    Relative paths in the file are relative to the file's own folder. An entry is
    `{"image": ..., "label": ...}` or, without a label, a bare path; "image" may be a list with one file a
    channel. Keys "case" (a name of one's own for the case), "patient" (cases of one patient stay in one fold)
    and "fold" are kept where present.

    Args:
        dataset_dir: the folder that holds `dataset.json`, or the JSON file itself.
        section: which list of the file.
        labelled: True: require a label of every entry. False: leave labels out. None: keep them where they are.
        must_exist: require every file to be there.

    Returns:
        `{"image": path or list of paths, "label": path, "case": name}`, paths absolute, in the file's order.

    Raises:
        FileNotFoundError: no such folder, no `dataset.json` in it, or an entry's file is absent.
        ValueError: the file is no datalist, the section is absent or empty, an entry is malformed, two entries are
            the same case or, of different patients, have one image, or an image is also a label.
    """
    path = _datalist_path(dataset_dir)
    entries = _section(path, _read_json(path), section)
    items = [_item(path, f"entry {i} of section '{section}'", e, labelled) for i, e in enumerate(entries)]
    require_own_files(items, f"section '{section}' of '{path}'")
    if must_exist:
        require_files(path, section, items)
    return require_unique(items, f"section '{section}' of '{path}'")


def datalist_sections(dataset_dir: PathLike) -> list[str]:
    """Return the names of the non-empty lists in a datalist; raises the errors of `load_datalist`."""
    return _filled_lists(_read_json(_datalist_path(dataset_dir)))


def check_datalist_labels(dataset_dir: PathLike, class_names: Sequence[str]) -> None:
    """Compare a datalist's label names with the classes; raises the errors of `check_label_names`."""
    path = _datalist_path(dataset_dir)
    check_label_names(_read_json(path).get("labels"), class_names, str(path))


def training_items(
    dataset_dir: PathLike,
    fold: int,
    num_folds: int,
    seed: int = 0,
    *,
    section: str = "training",
    class_names: Sequence[str] | None = None,
) -> list[Item]:
    """Return the labelled cases outside `fold`; raises the errors of `load_datalist` and `splits.fold_split`.

    With `class_names`, of exclusive classes whose labels are 1, 2, ... in the files, the datalist must not name the
    labels otherwise; see `check_label_names`.
    """
    if class_names is not None:
        check_datalist_labels(dataset_dir, class_names)
    return fold_split(load_datalist(dataset_dir, section), fold, num_folds, seed)[0]


def validation_items(
    dataset_dir: PathLike, fold: int, num_folds: int, seed: int = 0, *, section: str = "training"
) -> list[Item]:
    """Return the labelled cases of `fold`; raises the errors of `load_datalist` and `splits.fold_split`."""
    return fold_split(load_datalist(dataset_dir, section), fold, num_folds, seed)[1]


def evaluation_items(
    dataset_dir: PathLike,
    split: str,
    fold: int,
    num_folds: int,
    seed: int = 0,
    *,
    label_key: str = "reference",
    class_names: Sequence[str] | None = None,
) -> list[Item]:
    """Return the cases to score, with "reference" in place of "label" so that preprocessing leaves it alone.

    Args:
        dataset_dir: as for `load_datalist`.
        split: "validation" for the fold held out in training, "test" for the labelled section "test".
        fold: of the model's training.
        num_folds: of the model's training.
        seed: of the model's training.
        label_key: "label" where the label is to be preprocessed with the image.
        class_names: as for `training_items`.

    Raises:
        ValueError: another split, labels that are named otherwise, a test case whose image or patient is also in
            section "training", and the errors of `load_datalist` and `splits.fold_split`.
    """
    if class_names is not None:
        check_datalist_labels(dataset_dir, class_names)
    if split == "validation":
        items = validation_items(dataset_dir, fold, num_folds, seed)
    elif split == "test":
        items = load_datalist(dataset_dir, "test")
        if "training" in datalist_sections(dataset_dir):
            require_unseen(load_datalist(dataset_dir, labelled=False, must_exist=False), items)
    else:
        raise ValueError(f"There is no split '{split}' to evaluate on; expected 'validation' or 'test'.")
    return [{(label_key if key == "label" else key): value for key, value in item.items()} for item in items]


def datalist_entry(item: Item, folder: Path | None) -> Item:
    """Return a case as a datalist has it, with paths relative to `folder` if given, else absolute."""

    def listed(path: PathLike) -> str:
        return Path(os.path.relpath(path, folder) if folder else os.path.abspath(path)).as_posix()

    images = [listed(path) for path in images_of(item)]
    entry: Item = {"case": item["case"], "image": images if len(images) > 1 else images[0]}
    entry |= {"label": listed(item["label"])} if item.get("label") else {}
    return entry | {key: item[key] for key in _KEPT if key in item}


def case_name(filename: str) -> str:
    """Return a file's name without folder and (double) suffix."""
    name = Path(filename).name
    for suffix in IMAGE_SUFFIXES:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return Path(name).stem


def absolute(path: PathLike) -> Path:
    """Return an absolute path without "~" and "..", links as they are."""
    return Path(os.path.abspath(Path(path).expanduser()))


def _datalist_path(dataset_dir: PathLike) -> Path:
    source = absolute(dataset_dir)
    if source.suffix == ".json" and not source.is_dir():
        if not source.is_file():
            raise FileNotFoundError(
                f"There is no datalist '{source}'; expected a JSON file like the Decathlon's. That of a public data "
                "set is made from its official folder by `python -m scripts.cli datalist`."
            )
        return source
    advice = (
        "Expected a folder in the Medical Segmentation Decathlon's layout: dataset.json, imagesTr/ and "
        "labelsTr/. Download or link the data set there, or set `dataset_dir` to where it is; the phantom "
        "data set is made by `scripts.data.phantom.dataset.ensure_phantom`."
    )
    if not source.is_dir():
        raise FileNotFoundError(f"There is no data set folder '{source}'. {advice}")
    if not (source / "dataset.json").is_file():
        found = ", ".join(sorted(p.name for p in source.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(f"'{source}' has no dataset.json (found: {found}). {advice}")
    return source / "dataset.json"


def _read_json(path: Path) -> Mapping[str, Any]:
    content = read_mapping(path, "an object with lists such as 'training'")
    require_plain(content, f"'{path}'")
    return content


def _section(path: Path, content: Mapping[str, Any], section: str) -> list[Any]:
    entries = content.get(section)
    if isinstance(entries, list) and entries:
        return entries
    state = "no" if section not in content else "an empty" if entries == [] else "no list as"
    others = [name for name in _filled_lists(content) if name != section]
    raise ValueError(
        f"'{path}' has {state} section '{section}'; expected a list of {{'image': ..., 'label': ...}}. "
        f"Sections with entries: {', '.join(others) or 'none'}."
    )


def _filled_lists(content: Mapping[str, Any]) -> list[str]:
    return [name for name, value in content.items() if isinstance(value, list) and value]


def _item(path: Path, where: str, entry: Any, labelled: bool | None) -> Item:
    fields = {"image": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, dict):
        raise ValueError(f"{where} of '{path}' is {entry!r}; expected {{'image': ..., 'label': ...}}.")
    image, label = fields.get("image"), fields.get("label")
    files: list[Any] = image if isinstance(image, list) else [image]
    if not files or not all(isinstance(f, str) and f for f in files):
        raise ValueError(f"{where} of '{path}' has image {image!r}; expected a path or a list of paths.")
    images = [_resolve(path, f) for f in files]
    item: Item = {"image": images if isinstance(image, list) else images[0]}
    if labelled or (labelled is None and label is not None):
        if not isinstance(label, str) or not label:
            raise ValueError(
                f"{where} of '{path}' has label {label!r}; expected a path. Cases without a label can only "
                "be used for inference."
            )
        item["label"] = _resolve(path, label)
    item["case"] = _own_name(fields.get("case"), f"{where} of '{path}': case") or _common_case_name(files)
    patient = fields.get("patient")
    if patient is not None and not isinstance(patient, str | int):
        raise ValueError(f"{where} of '{path}' has the patient {patient!r}; expected a name or a number.")
    return item | {key: fields[key] for key in _KEPT if fields.get(key) is not None}


def _own_name(case: Any, where: str) -> str:
    """Return the case name that an entry gives; output files are named after it."""
    if isinstance(case, int) and not isinstance(case, bool):
        return str(case)
    return require_name(case, where) if case else ""


def _resolve(datalist: Path, name: str) -> str:
    return os.path.normpath(datalist.parent / name)


def _common_case_name(files: list[str]) -> str:
    """Return the common case name of channel files: `b_0000`, `b_0001` are `b`; `b/t1`, `b/t2` are `b`."""
    names = [case_name(f) for f in files]
    if len(set(names)) == 1:
        return names[0]
    common = os.path.commonprefix(names)  # noqa: RUF071 - file names, meant letter by letter
    cut = max(common.rfind(separator) for separator in "_-. ")
    return common[:cut] if cut > 0 else Path(files[0]).parent.name
