"""Table of the volumes of the classes, and of the image's mean intensity in them, beside a folder of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.data.cases import Item, case_of, images_of, mask_name
from scripts.data.nifti import affine_in_mm, load_nifti
from scripts.geometry.grid import voxel_ml
from scripts.report.safely import or_warn
from scripts.whole_file import write_rows

TABLE = "volumes.csv"
Row = dict[str, "str | int"]


def class_volumes(
    labels: NDArray[np.integer], image: NDArray[np.floating], millilitres: float, class_names: Sequence[str]
) -> list[Row]:
    """Return a row per class: voxels, volume in ml, and mean and standard deviation of the intensities in it.

    Args:
        labels: H x W x D of class numbers, or H x W x D x N regions that may overlap
        image: of its first channel, on the same grid.  # H x W x D
        millilitres: volume of a voxel
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
                "volume_ml": f"{inside.size * millilitres:.4f}",
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
    found = {case_of(item): (folder / mask_name(case_of(item)), images_of(item)[0]) for item in items}
    places = {case: (path, image) for case, (path, image) in found.items() if path.is_file()}
    what = f"The volumes of the predictions in {folder} were not measured"
    or_warn(what, lambda: write_volumes(folder / TABLE, places, class_names))


def _case_rows(case: str, labels_file: Path, image_file: str, class_names: Sequence[str]) -> list[dict[str, Any]]:
    labels, image = load_nifti(labels_file), load_nifti(image_file)
    array = np.asarray(image.dataobj, dtype=np.float32)
    millilitres = voxel_ml(affine_in_mm(labels.header))
    channel = array if array.ndim == 3 else array[..., 0]
    try:
        rows = class_volumes(np.asarray(labels.dataobj), channel, millilitres, class_names)
    except ValueError as error:
        raise ValueError(f"Case '{case}': {error}") from error
    return [{"case": case, **row} for row in rows]
