"""Cases as dictionaries, as in MONAI's data sets: name, patient and files."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

LABEL_WORDS = ("labels?", "lbls?", "segmentations?", "segm?", "masks?", "gt", "annotations?", "contours?")
"""Patterns of the words by which names of files tell a label map."""
MASK_SUFFIX = ".nii.gz"
NIFTI_SUFFIXES = (".nii.gz", ".nii")
OTHER_SUFFIXES = (".nrrd", ".mha", ".mgz")
"""NRRD and MetaImage, which need the package itk, and FreeSurfer's volumes."""
IMAGE_SUFFIXES = (*NIFTI_SUFFIXES, *OTHER_SUFFIXES)
Item = dict[str, Any]
"""Key "image": a path, or a list with one path a channel; often "label" or "reference", "case", "patient", "fold"."""


def case_of(item: Item) -> str:
    """Return the name of a case, or its image if it has none."""
    return str(item.get("case", item["image"]))


def mask_name(case: str, postfix: str = "seg") -> str:
    """Return the name of the file of a case's mask."""
    return f"{case}_{postfix}{MASK_SUFFIX}"


def patient_of(item: Item) -> str:
    """Return the patient of a case, or the case itself if none is given."""
    return case_of(item) if item.get("patient") is None else str(item["patient"])


def images_of(item: Item) -> list[str]:
    """Return the image files of a case: one, or one per channel."""
    return list(item["image"]) if isinstance(item["image"], list | tuple) else [item["image"]]


def files_of(item: Item) -> list[tuple[str, str]]:
    """Return all files of a case with their kind: "image", "label" or "reference"."""
    references = [(kind, item[kind]) for kind in ("label", "reference") if kind in item]
    return [*(("image", path) for path in images_of(item)), *references]


def loaded_from(volume: Any, key: Hashable) -> str:
    """Return the file that a volume was loaded from, by its metadata; where they do not say, its key in the case."""
    path = getattr(volume, "meta", {}).get("filename_or_obj")
    return str(path) if path else f"'{key}'"


def identities(item: Item) -> set[str]:
    """Return the images and the named patient of a case, which no other section of a data set may share."""
    return {*images_of(item), *([] if item.get("patient") is None else [f"patient '{item['patient']}'"])}
