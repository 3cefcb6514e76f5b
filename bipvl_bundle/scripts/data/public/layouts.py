"""Official folder layouts of public data sets: their cases and the meaning of their labels."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.data.cases import NIFTI_SUFFIXES, Item
from scripts.data.datalist import load_datalist
from scripts.messages.phrases import some
from scripts.trust.parsing import read_mapping

LAST_CT_OF_AMOS = 500
"""AMOS22 numbers its 500 CT scans from 1 to 500 and its 100 MR scans from 501 to 600."""

AMOS_ORGANS = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder"),
    "prostate/uterus",
)
"""In the order of the labels 1 to 15; the file itself writes "gall bladder", "arota" and "postcava"."""

MMWHS_LABELS = {
    "500": "left ventricle",
    "205": "left ventricular myocardium",
    "600": "right ventricle",
    "420": "left atrium",
    "550": "right atrium",
    "820": "ascending aorta",
    "850": "pulmonary artery",
}


@dataclass(frozen=True)
class OfficialCases:
    """The labelled cases of an official folder.

    Attributes:
        name: of the data set.
        modality: of each image channel, by its number, as in the Decathlon.
        labels: what the values in the label files mean.
        training: cases to train and validate on, `{"image": ..., "label": ..., "case": ...}`, absolute paths.
        test: those that the data set itself puts aside; empty where it has no labelled test cases.
        complete: how many the whole release has in training and test; None: not known.
    """

    name: str
    modality: Mapping[str, str]
    labels: Mapping[str, str]
    training: list[Item]
    test: list[Item] = field(default_factory=list)
    complete: tuple[int, int] | None = None


def amos22(source: Path) -> OfficialCases:
    """Return AMOS22's CT cases: `imagesTr` and `labelsTr` to train on, `imagesVa` and `labelsVa` to test on.

    The release has labels for 200 and 100 CT cases (ids up to 500), which are the paper's numbers; those of
    `imagesTs` are not public. MR cases (ids above 500) are left out.

    Raises:
        FileNotFoundError: a folder is missing, or an image's label or a label's image.
        ValueError: a NIfTI file of another name, or no CT case.
    """
    folders = ("imagesTr", "labelsTr", "imagesVa", "labelsVa")
    _require_folders(source, folders, "AMOS22 (imagesTr/amos_0001.nii.gz and so on)")
    found = {folder: _amos_ct(source / folder) for folder in folders}
    training = _paired(found["imagesTr"], found["labelsTr"], names=("imagesTr", "labelsTr"))
    test = _paired(found["imagesVa"], found["labelsVa"], names=("imagesVa", "labelsVa"))
    labels = {"0": "background"} | {str(n): organ for n, organ in enumerate(AMOS_ORGANS, start=1)}
    return OfficialCases("AMOS22 (CT)", {"0": "CT"}, labels, training, test, complete=(200, 100))


def _amos_ct(folder: Path) -> dict[str, Path]:
    files = _named_files(folder, r"(amos_(\d{4}))", "amos_0001.nii.gz")
    found = _by_case([(match[1], path) for match, path in files if int(match[2]) <= LAST_CT_OF_AMOS])
    if not found:
        raise ValueError(
            f"'{folder}' holds no CT case: expected files amos_0001.nii.gz to amos_{LAST_CT_OF_AMOS:04}.nii.gz, found "
            f"{len(files)} with higher ids, which are MR."
        )
    return found


def mmwhs_ct(source: Path) -> OfficialCases:
    """Return MM-WHS's 20 labelled CT cases; raises the errors of `mmwhs`."""
    return mmwhs(source, "ct", "CT")


def mmwhs_mr(source: Path) -> OfficialCases:
    """Return MM-WHS's 20 labelled MR cases; raises the errors of `mmwhs`."""
    return mmwhs(source, "mr", "MR")


def mmwhs(source: Path, prefix: str, modality: str) -> OfficialCases:
    """Return the cases of `ct_train` or `mr_train`: ct_train_1001_image beside ct_train_1001_label.

    The labels of the challenge's test cases are not public.

    Raises:
        FileNotFoundError: the folder is missing, or an image's label or a label's image.
        ValueError: a NIfTI file of another name, or no case.
    """
    name = f"{prefix}_train"
    example = f"{name}_1001_image.nii.gz"
    _require_folders(source, (name,), f"MM-WHS ({name}/{example} and {name}_1001_label.nii.gz and so on)")
    files = _named_files(source / name, rf"({name}_\d+)_(image|label)", example)
    images = _by_case([(match[1], path) for match, path in files if match[2] == "image"])
    labels = _by_case([(match[1], path) for match, path in files if match[2] == "label"])
    cases = _paired(images, labels, names=("the images", "the labels"))
    meaning = {"0": "background", **MMWHS_LABELS}
    return OfficialCases(f"MM-WHS ({modality})", {"0": modality}, meaning, cases, complete=(20, 0))


def msd(source: Path) -> OfficialCases:
    """Return the labelled cases in the dataset.json of any task of the Medical Segmentation Decathlon.

    Raises:
        FileNotFoundError: no folder, no dataset.json, or a file that it lists is absent.
        ValueError: dataset.json is none; see `load_datalist`.
    """
    training = load_datalist(source)
    content = read_mapping(source / "dataset.json", "an object")
    modality, labels = (_text_mapping(content.get(key)) for key in ("modality", "labels"))
    return OfficialCases(str(content.get("name", source.name)), modality, labels, training)


def msd_brain(source: Path) -> OfficialCases:
    """Return the 484 labelled cases of Decathlon Task01, of four channels (FLAIR, T1, T1 with gadolinium, T2).

    Raises:
        FileNotFoundError: as for `msd`.
        ValueError: as for `msd`, or dataset.json tells of another task.
    """
    cases = msd(source)
    if len(cases.modality) != 4 or sorted(cases.labels) != ["0", "1", "2", "3"]:
        raise ValueError(
            f"'{source}' is not the Decathlon's Task01_BrainTumour: expected 4 modalities and the labels 0 to 3 in its "
            f"dataset.json, found {len(cases.modality)} ({', '.join(cases.modality.values())}) and the labels "
            f"{', '.join(cases.labels)}. Give that task's folder, or take the layout 'msd'."
        )
    return OfficialCases("MSD-Brain", cases.modality, cases.labels, cases.training, complete=(484, 0))


def _text_mapping(value: Any) -> dict[str, str]:
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}


def _require_folders(source: Path, folders: Sequence[str], layout: str) -> None:
    missing = [name for name in folders if not (source / name).is_dir()]
    if not missing:
        return
    within = sorted(p.name for p in source.iterdir() if not p.name.startswith(".")) if source.is_dir() else []
    inner = [name for name in within if all((source / name / folder).is_dir() for folder in folders)]
    hint = f" It seems to be one level down: give '{source / inner[0]}'." if inner else " Complete or correct it."
    raise FileNotFoundError(
        f"'{source}' has not the layout of {layout}: missing {', '.join(f'{name}/' for name in missing)}; "
        f"found {some(within, 8) or 'nothing' if source.is_dir() else 'no such folder'}.{hint}"
    )


def _named_files(folder: Path, pattern: str, example: str) -> list[tuple[re.Match[str], Path]]:
    """Return a folder's NIfTI files with the match of each name, without hidden files, which archives leave."""
    endings = "|".join(map(re.escape, NIFTI_SUFFIXES))
    visible = [p for p in sorted(folder.iterdir()) if p.name.endswith(NIFTI_SUFFIXES) and not p.name.startswith(".")]
    matches = [(re.fullmatch(f"{pattern}({endings})", path.name), path) for path in visible]
    foreign = [path.name for match, path in matches if match is None]
    if foreign or not matches:
        raise ValueError(
            f"'{folder}' holds {f'{len(foreign)} NIfTI file(s) of another name' if foreign else 'no NIfTI file'}"
            f"{f', such as {foreign[0]}' if foreign else ''}; expected names like {example}. Give the folder as it was "
            "unpacked."
        )
    return [(match, path) for match, path in matches if match is not None]


def _by_case(files: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for case, path in files:
        if found.setdefault(case, path) != path:
            raise ValueError(f"Case '{case}' is there twice: {found[case]} and {path}; remove one.")
    return found


def _paired(images: Mapping[str, Path], labels: Mapping[str, Path], *, names: tuple[str, str]) -> list[Item]:
    """Return the pairs of two dictionaries with equal keys; raises an error if a key lacks its partner."""
    for one, other, what in ((images, labels, names), (labels, images, names[::-1])):
        alone = sorted(set(one) - set(other))
        if alone:
            raise FileNotFoundError(
                f"{len(alone)} case(s) of {what[0]} have nothing in {what[1]}, such as '{alone[0]}' "
                f"({one[alone[0]]}); complete the download, or take the file out."
            )
    return [{"image": os.fspath(images[c]), "label": os.fspath(labels[c]), "case": c} for c in sorted(images)]
