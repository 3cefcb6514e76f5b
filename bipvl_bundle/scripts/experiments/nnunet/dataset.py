"""Writes a data set for nnU-Net that points at the images where they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import Compose

from scripts.data.cases import NIFTI_SUFFIXES, Item, case_of, images_of
from scripts.data.label_maps import LabelsToRegionsd
from scripts.data.loading import load_volume
from scripts.whole_file import write_text

SUFFIX = ".nii.gz"


def write_dataset(
    folder: Path,
    *,
    training: Sequence[Item],
    validation: Sequence[Item],
    class_names: Sequence[str],
    softmax: bool,
    label_transforms: Sequence[Any],
    modality: str,
) -> dict[str, list[str]]:
    """Write `dataset.json` and, where they differ from the originals, label files; images are not copied.

    Args:
        folder: of the data set, below nnU-Net's raw folder.
        training: cases with "image" and "label".
        validation: the held-out cases.
        class_names: in the order of their numbers.
        softmax: False for overlapping regions, of which one transform then makes channels.
        label_transforms: as in the configuration, instantiated.
        modality: CT has an intensity normalisation of its own in nnU-Net.

    Returns:
        the fold: names of the cases under "train" and "val"

    Raises:
        ValueError: regions without a `LabelsToRegionsd`, or an image of several channels in one file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rewritten = softmax and bool(label_transforms)
    cases = {case_of(item): item for item in (*training, *validation)}
    entries, channels = {}, 1
    for case, item in cases.items():
        label = _rewritten_label(folder, case, item, label_transforms) if rewritten else item["label"]
        images = channel_files(item)
        channels = len(images)
        entries[case] = {"images": images, "label": str(label)}
    content: dict[str, Any] = {
        "channel_names": {str(n): modality if modality == "CT" else "MRI" for n in range(channels)},
        "labels": {"background": 0, **_values(class_names, softmax, label_transforms)},
        "numTraining": len(entries),
        "file_ending": SUFFIX,
        "dataset": entries,
    }
    if not softmax:
        content["regions_class_order"] = list(range(1, len(class_names) + 1))
    write_text(folder / "dataset.json", json.dumps(content, indent=2))
    return {"train": [case_of(item) for item in training], "val": [case_of(item) for item in validation]}


def channel_files(item: Item) -> list[str]:
    """Return the images of a case as nnU-Net wants them, one file a channel.

    Raises:
        ValueError: one file holds several channels, or is no NIfTI.
    """
    files = [str(path) for path in images_of(item)]
    if not all(file.endswith(NIFTI_SUFFIXES) for file in files):
        raise ValueError(f"'{files[0]}' is no NIfTI file, in which nnU-Net is given its images here. Convert it.")
    if len(nib.load(files[0]).shape) > 3:  # type: ignore[attr-defined]
        raise ValueError(
            f"'{files[0]}' holds several channels; nnU-Net reads one file a channel. Split the images, and list "
            'the files of a case in the datalist: "image": [a, b].'
        )
    return files


def region_masks(probabilities: Path, like: Path, path: Path) -> None:
    """Write nnU-Net's probabilities of regions (regions x z x y x x) as one binary channel each, on a file's grid."""
    with np.load(probabilities) as content:
        masks = content["probabilities"].transpose(3, 2, 1, 0) >= 0.5
    grid: Any = nib.load(like)
    nib.save(nib.Nifti1Image(masks.astype(np.uint8), grid.affine), path)


def _values(class_names: Sequence[str], softmax: bool, label_transforms: Sequence[Any]) -> Mapping[str, Any]:
    if softmax:
        return {name: number for number, name in enumerate(class_names, start=1)}
    regions = next((t.regions for t in label_transforms if isinstance(t, LabelsToRegionsd)), None)
    if regions is None or len(label_transforms) != 1:
        raise ValueError(
            "nnU-Net reads overlapping regions as lists of values; expected one LabelsToRegionsd as "
            f"`label_transforms`, found {[type(t).__name__ for t in label_transforms]}."
        )
    return {name: [int(v) for v in values] for name, values in zip(class_names, regions, strict=True)}


def _rewritten_label(folder: Path, case: str, item: Item, label_transforms: Sequence[Any]) -> Path:
    path = folder / "labels" / f"{case}{SUFFIX}"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        loaded = load_volume(item["label"])
        label: Any = Compose(list(label_transforms))({"label": loaded})["label"]
        values = label[0].numpy()
        kind = np.promote_types(np.min_scalar_type(int(values.min())), np.min_scalar_type(int(values.max())))
        nib.save(nib.Nifti1Image(values.astype(kind), label.affine.numpy()), path)
    return path
