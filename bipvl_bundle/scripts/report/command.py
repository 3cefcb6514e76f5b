"""The command `picture`: draws a case, its reference and a prediction."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from scripts.report.pictures import comparison_figure
from scripts.words.table import ConceptTable


def picture(
    image: str,
    reference: str,
    prediction: str,
    concepts: str,
    output: str,
    low: float = -175,
    high: float = 250,
) -> None:
    """Draw image, reference and prediction side by side, as PNG, PDF or SVG.

    Args:
        image: NIfTI file
        reference: label map, NIfTI
        prediction: label map, NIfTI, in the same grid
        concepts: the concept table, for the names of the classes
        output: the picture's file
        low: intensity shown black
        high: intensity shown white
    """
    volumes = [nib.as_closest_canonical(nib.load(path)) for path in (image, reference, prediction)]
    arrays = [np.asarray(volume.dataobj) for volume in volumes]
    spacing = [float(length) for length in volumes[0].header.get_zooms()[:3]]
    names = ConceptTable.load(concepts).classes
    figure = comparison_figure(arrays[0], arrays[1], arrays[2], names, spacing=spacing, window=(low, high))
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
