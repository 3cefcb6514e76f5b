"""The user's commands beside monai.bundle's: ``python -m scripts.cli COMMAND --help``, in the bundle's folder."""

from __future__ import annotations

from pathlib import Path

import fire
import nibabel as nib
import numpy as np

from scripts.concepts import ConceptTable
from scripts.config_check import check
from scripts.data.phantom import make_phantom
from scripts.plots import comparison_figure
from scripts.text_encoder_maker import make_text_encoder


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


COMMANDS = {
    "check": check,
    "make_phantom": make_phantom,
    "make_text_encoder": make_text_encoder,
    "picture": picture,
}


def main(arguments: list[str] | None = None) -> None:
    """Run one of ``COMMANDS``; what it returns is not printed, since each prints what a user needs."""
    fire.Fire(COMMANDS, command=arguments, serialize=lambda result: None)


if __name__ == "__main__":
    main()
