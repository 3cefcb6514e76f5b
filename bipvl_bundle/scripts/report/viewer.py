"""Volumes for the viewer in a page: NiiVue, and scripts that hold NIfTI files, which need no server."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from scripts.report.colours import class_colours
from scripts.report.kept_cases import Volumes, file_stem
from scripts.whole_file import write_text

LIBRARY = Path(__file__).parent / "niivue"
LIBRARY_FILES = ("niivue.umd.js", "LICENSE")
MOST_VOXELS = 4_000_000


def write_library(folder: Path) -> None:
    """Copy NiiVue and its licence into the folder beside a page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in LIBRARY_FILES:
        shutil.copyfile(LIBRARY / name, folder / name)


def write_viewer_case(folder: Path, case: str, volumes: Volumes) -> dict[str, Any]:
    """Write the volumes of a case as a script and return what the page must know of it.

    A page that was opened from a disk may load scripts and no other files, hence a script. The image has 256 values
    between its 0.5th and 99.5th percentile, and above `MOST_VOXELS` every second (third, ...) voxel is left out: it is
    for looking and not for measuring.
    """
    step = thinning(volumes.image.shape)
    affine = volumes.affine @ np.diag([step, step, step, 1.0])
    affine[:3, 3] = volumes.affine[:3, 3]
    layers = {"image": grey(volumes.image), **volumes.labels}
    thinned = {name: array[::step, ::step, ::step] for name, array in layers.items()}
    content = {name: encoded(array, affine) for name, array in thinned.items()}
    file = f"{file_stem(case)}.js"
    text = f"(window.reportVolumes ??= {{}})[{_script(case)}] = {_script(content)};\n"
    write_text(folder / file, text)
    return {"case": case, "file": f"{folder.name}/{file}", "layers": list(volumes.labels), "step": step}


def thinning(shape: Sequence[int]) -> int:
    """Return every how many voxels along each axis one is kept."""
    step = 1
    while np.prod([-(-size // step) for size in shape]) > MOST_VOXELS:
        step += 1
    return step


def grey(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return an image in 256 values between its 0.5th and its 99.5th percentile."""
    low, high = np.percentile(image, (0.5, 99.5))
    scaled = (image - low) / max(high - low, 1e-6)
    return (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8)


def encoded(array: NDArray, affine: NDArray) -> str:
    """Return a volume as a compressed NIfTI file in base 64."""
    return base64.b64encode(gzip.compress(nib.Nifti1Image(array, affine).to_bytes(), 6)).decode()


def legend(class_names: Sequence[str]) -> list[dict[str, str]]:
    """Return name and colour of each class, in label order."""
    return [{"name": n, "colour": c} for n, c in zip(class_names, class_colours(len(class_names)), strict=True)]


def _script(content: Any) -> str:
    return json.dumps(content).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
