"""Table of the volumes of the classes, and of the image's mean intensity in them, beside a folder of predictions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.data.cases import Item, case_of, images_of
from scripts.data.datalist import case_name
from scripts.data.nifti import affine_in_mm, load_nifti
from scripts.messages.phrases import first_lines
from scripts.whole_file import write_rows

logger = logging.getLogger(__name__)

TABLE = "volumes.csv"
Row = dict[str, "str | int"]


def class_volumes(
    labels: NDArray[np.integer], image: NDArray[np.floating], voxel_ml: float, class_names: Sequence[str]
) -> list[Row]:
    """Return a row per class: voxels, volume in ml, and mean and standard deviation of the intensities in it.

    Args:
        labels: H x W x D of class numbers, or H x W x D x N regions that may overlap
        image: of its first channel, on the same grid.  # H x W x D
        voxel_ml: volume of a voxel
        class_names: N names in the order of their numbers

    Raises:
        ValueError: labels and image differ in shape.
    """
    if labels.shape[:3] != image.shape:
        raise ValueError(f"labels have the shape {labels.shape}, their image {image.shape}; expected one grid.")
    rows: list[Row] = []
    for number, name in enumerate(class_names, start=1):
        mask = labels == number if labels.ndim == 3 else labels[..., number - 1] > 0
        inside = image[mask]
        known = inside.size > 0
        rows.append(
            {
                "class": name,
                "voxels": int(inside.size),
                "volume_ml": f"{inside.size * voxel_ml:.4f}",
                "mean_intensity": f"{inside.mean(dtype=np.float64):.4f}" if known else "",
                "sd_intensity": f"{inside.std(dtype=np.float64):.4f}" if known else "",
            }
        )
    return rows


def write_volumes(path: Path, places: Mapping[str, tuple[Path, str]], class_names: Sequence[str]) -> None:
    """Write the table of several cases.

    Args:
        path: of the CSV file
        places: label map and image of each case
        class_names: in the order of their numbers

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a label map is not on the grid of its image, or there is no case.
    """
    if not places:
        raise ValueError(f"There is no case for '{path}'.")
    rows = [row for case, files in places.items() for row in _case_rows(case, *files, class_names)]
    write_rows(path, rows)


def write_prediction_volumes(folder: str | Path, items: Sequence[Item], class_names: Sequence[str]) -> None:
    """Write `volumes.csv` beside the predictions of an inference; a case without a prediction is left out.

    It fails no inference: what cannot be read is logged as a warning, and the label maps stay.

    Args:
        folder: with the predictions, named after their case
        items: the cases
        class_names: in the order of their labels or channels
    """
    folder = Path(folder)
    found = {case_of(item): (_prediction(folder, item), images_of(item)[0]) for item in items}
    places = {case: (path, image) for case, (path, image) in found.items() if path.is_file()}
    try:
        write_volumes(folder / TABLE, places, class_names)
    except (OSError, ValueError) as error:
        logger.warning("The volumes of the predictions in %s were not measured: %s", folder, first_lines(error, 2))


def _prediction(folder: Path, item: Item) -> Path:
    return folder / f"{item.get('case') or case_name(images_of(item)[0])}_seg.nii.gz"


def _case_rows(case: str, labels_file: Path, image_file: str, class_names: Sequence[str]) -> list[dict[str, Any]]:
    labels, image = load_nifti(labels_file), load_nifti(image_file)
    array = np.asarray(image.dataobj, dtype=np.float32)
    voxel_ml = abs(float(np.linalg.det(affine_in_mm(labels.header)[:3, :3]))) / 1000
    channel = array if array.ndim == 3 else array[..., 0]
    try:
        rows = class_volumes(np.asarray(labels.dataobj), channel, voxel_ml, class_names)
    except ValueError as error:
        raise ValueError(f"Case '{case}': {error}") from error
    return [{"case": case, **row} for row in rows]
