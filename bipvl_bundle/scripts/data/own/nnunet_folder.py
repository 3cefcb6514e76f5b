"""Data set folders of nnU-Net: what their dataset.json says, for `new_dataset`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scripts.data.cases import IMAGE_SUFFIXES
from scripts.trust.parsing import read_mapping
from scripts.trust.plain import require_plain

BACKGROUND, IGNORE = "background", "ignore"


class NnunetFolder(NamedTuple):
    """Folders, classes and label values (a list for a region) of a data set; test labels may be absent."""

    images: Path
    labels: Path
    test_images: Path | None
    test_labels: Path | None
    classes: list[str]
    label_values: list[int | list[int]]
    modality: str | None


def read_nnunet_folder(folder: Path) -> NnunetFolder:
    """Read the `dataset.json` of a data set in nnU-Net's layout (version 2).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it lacks `channel_names` or `labels`, or has what this bundle does not read: an ignore label, other
            files than NIfTI.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"'{folder}' has no dataset.json; expected a data set folder of nnU-Net, or a folder of images with "
            "`labels`, `classes` and `modality` beside it."
        )
    content = read_mapping(path, "nnU-Net's description of a data set")
    require_plain(content, f"'{path}'")
    channels, labels = content.get("channel_names"), content.get("labels")
    if not isinstance(channels, Mapping) or not channels or not isinstance(labels, Mapping) or BACKGROUND not in labels:
        raise ValueError(
            f"'{path}' has no `channel_names`, or no `labels` with a {BACKGROUND}, as nnU-Net's version 2 writes them. "
            "A Decathlon's folder needs no description: set `dataset_dir` to it."
        )
    if IGNORE in labels or content.get("file_ending", ".nii.gz") not in IMAGE_SUFFIXES:
        raise ValueError(
            f"'{path}' has an ignore label, or files of another kind than {', '.join(IMAGE_SUFFIXES)} "
            f"({content.get('file_ending')}), which cannot be read."
        )
    values = {str(name): _value(path, name, value) for name, value in labels.items() if name != BACKGROUND}
    return NnunetFolder(
        folder / "imagesTr",
        folder / "labelsTr",
        _if_there(folder / "imagesTs"),
        _if_there(folder / "labelsTs"),
        list(values),
        list(values.values()),
        _modality([str(name).upper() for name in channels.values()]),
    )


def _value(path: Path, name: Any, value: Any) -> int | list[int]:
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(part, int) and not isinstance(part, bool) and part > 0 for part in found):
        raise ValueError(f"'{path}': label '{name}' is {value!r}; expected a number from 1 on, or a list of them.")
    return value


def _if_there(folder: Path) -> Path | None:
    has_files = folder.is_dir() and any(path.name.endswith(IMAGE_SUFFIXES) for path in folder.iterdir())
    return folder if has_files else None


def _modality(channels: list[str]) -> str | None:
    """Return the modality that the channels' names tell, if they do."""
    if set(channels) == {"CT"}:
        return "CT"
    return "MR" if all(name.startswith(("MR", "T1", "T2", "FLAIR")) for name in channels) else None
