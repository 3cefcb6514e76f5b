"""Label maps of an evaluation, kept beside its scores for pictures and for the viewer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from scripts.data.cases import mask_name
from scripts.data.nifti import load_ras
from scripts.trust.parsing import read_mapping
from scripts.trust.plain import require_plain
from scripts.whole_file import whole_file, write_text

FOLDER = "cases"
INDEX = "cases.json"


@dataclass(frozen=True)
class Case:
    """Files of a case: images, reference and prediction, the latter relative to the folder of the scores."""

    case: str
    images: list[str]
    reference: str
    prediction: str


@dataclass(frozen=True)
class Volumes:
    """Arrays of a case in RAS orientation, on one grid.

    Attributes:
        image: its first channel.  # H x W x D
        labels: label maps by name, the reference first.  # each H x W x D
        spacing: mm.
        affine: voxels to mm.
    """

    image: NDArray[np.floating]
    labels: dict[str, NDArray[np.integer]]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]


def file_stem(case: str) -> str:
    """Return the name of a case as that of a file."""
    return re.sub(r"[^\w.-]+", "_", case)


def one_map(labels: NDArray) -> NDArray[np.integer]:
    """Return one label map of 1 x H x W x D labels or N x H x W x D regions, of which the last one is on top."""
    kind = np.uint8 if max(len(labels), int(labels.max(initial=0))) < 256 else np.uint16
    if len(labels) == 1:
        return labels[0].astype(kind)
    found = np.zeros(labels.shape[1:], dtype=kind)
    for number, region in enumerate(labels, start=1):
        found[region > 0] = number
    return found


def keep(folder: Path, case: str, images: Sequence[str], maps: dict[str, NDArray], affine: NDArray) -> Case:
    """Write the label maps of a case, "reference" and "prediction", below the folder of the scores."""
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, labels in maps.items():
        path = place / mask_name(file_stem(case), "seg" if name == "prediction" else name)
        with whole_file(path) as part:
            nib.save(nib.Nifti1Image(one_map(labels), affine), part)
        written[name] = path.relative_to(folder).as_posix()
    return Case(case, list(images), written["reference"], written["prediction"])


def write_index(folder: Path, cases: Sequence[Case]) -> None:
    """Write which cases are kept below the folder of the scores."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    write_text(folder / FOLDER / INDEX, json.dumps({"cases": [asdict(case) for case in cases]}, indent=2) + "\n")


def read_index(folder: Path) -> dict[str, Case]:
    """Return the cases that are kept below a folder of scores, by name; none where none are.

    Raises:
        ValueError: the file is not such an index.
    """
    path = folder / FOLDER / INDEX
    if not path.is_file():
        return {}
    content = read_mapping(path, "a list 'cases'")
    require_plain(content, f"'{path}'")
    entries: list[dict[str, Any]] = content.get("cases", [])
    try:
        cases = [Case(**entry) for entry in entries]
    except TypeError as error:
        raise ValueError(f"'{path}' does not list cases as an evaluation does: {error}. Evaluate again.") from error
    return {case.case: case for case in cases}


def load_case(case: Case, folders: dict[str, Path], predictions: dict[str, str]) -> Volumes:
    """Load a case with the predictions of several models.

    Args:
        case: of the first model.
        folders: of the scores, by the name of the model.
        predictions: file of each model's prediction below its folder.

    Raises:
        FileNotFoundError: a file is no longer there.
        ValueError: a prediction is on another grid.
    """
    first = next(iter(folders.values()))
    image = load_ras(case.images[0])
    array = np.asarray(image.dataobj, dtype=np.float32)
    array = array if array.ndim == 3 else array[..., 0]
    labels = {"reference": _labels(first / case.reference)}
    labels |= {name: _labels(folder / predictions[name]) for name, folder in folders.items()}
    for name, found in labels.items():
        if found.shape != array.shape:
            raise ValueError(f"Case '{case.case}': {name} has the shape {found.shape}, its image {array.shape}.")
    spacing = tuple(float(length) for length in image.header.get_zooms()[:3])
    return Volumes(array, labels, (spacing[0], spacing[1], spacing[2]), image.affine)


def _labels(path: Path) -> NDArray[np.integer]:
    return np.asarray(load_ras(path).dataobj)
