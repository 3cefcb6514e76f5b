"""The command `picture`: draws a case, its reference and a prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.data.nifti import load_ras
from scripts.report.pictures import comparison_figure, own_window
from scripts.words.table import ConceptTable

CT_WINDOW = (-175.0, 250.0)
"""HU"""


def picture(
    image: str,
    reference: str,
    prediction: str,
    concepts: str,
    output: str,
    low: float | None = None,
    high: float | None = None,
) -> None:
    """Draw image, reference and prediction side by side, as PNG, PDF or SVG.

    Args:
        image: NIfTI file
        reference: label map, NIfTI
        prediction: label map, NIfTI, in the same grid
        concepts: the concept table, for the names of the classes
        output: the picture's file
        low: intensity shown black; by default -175 HU for CT, else the image's own first percentile above 0
        high: intensity shown white; by default 250 HU for CT, else the 99th percentile
    """
    volumes = [load_ras(path) for path in (image, reference, prediction)]
    arrays = [np.asarray(volume.dataobj) for volume in volumes]
    spacing = [float(length) for length in volumes[0].header.get_zooms()[:3]]
    table = ConceptTable.load(concepts)
    first, last = CT_WINDOW if table.modality == "CT" else own_window(arrays[0])
    window = (first if low is None else low, last if high is None else high)
    figure = comparison_figure(arrays[0], arrays[1], arrays[2], table.classes, spacing=spacing, window=window)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
