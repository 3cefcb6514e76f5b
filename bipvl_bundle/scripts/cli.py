"""The user's commands beside monai.bundle's: ``python -m scripts.cli COMMAND --help``, in the bundle's folder."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np

from scripts.benchmark.command import benchmark
from scripts.configuration.check import check
from scripts.data.check.command import check_data
from scripts.data.own.new_dataset import new_dataset
from scripts.data.phantom.dataset import make_phantom
from scripts.data.public.datalists import make_datalist
from scripts.dicom.segment import segment_dicom
from scripts.experiments.commands import run_experiments
from scripts.experiments.compare import compare_runs
from scripts.export.command import export_model
from scripts.export.network import describe_export
from scripts.release.bundle import release_bundle
from scripts.report.pictures import comparison_figure
from scripts.words.encoder_maker import make_text_encoder
from scripts.words.prompts import print_prompt
from scripts.words.table import ConceptTable
from scripts.words.writer import write_concepts


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


COMMANDS: dict[str, Callable[..., Any]] = {
    "benchmark": benchmark,
    "check": check,
    "check_data": check_data,
    "compare": compare_runs,
    "datalist": make_datalist,
    "describe_export": describe_export,
    "experiments": run_experiments,
    "export_model": export_model,
    "make_phantom": make_phantom,
    "make_text_encoder": make_text_encoder,
    "new_dataset": new_dataset,
    "picture": picture,
    "prompt": print_prompt,
    "release": release_bundle,
    "segment_dicom": segment_dicom,
    "write_concepts": write_concepts,
}


HELP = {"--help", "-h"}


def _check_options(words: list[str]) -> None:
    """Stop at an option that a command does not have; Fire would run the command first, and then complain."""
    parameters = inspect.signature(COMMANDS[words[0]]).parameters if words[0] in COMMANDS else {}
    options = [word.split("=")[0] for word in takewhile(lambda word: word != "--", words)]
    for word in options:
        if re.match("-[A-Za-z]{2}", word):  # to Fire a value
            sys.exit(f"{words[0]} has no option {word}; options have two dashes: -{word}. Nothing was done.")
    if not parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in (word[2:].replace("-", "_") for word in options if word.startswith("--")):
        if name not in parameters and name.removeprefix("no") not in parameters:
            near = get_close_matches(name, parameters, n=1, cutoff=0.0)[0]
            sys.exit(f"{words[0]} has no option --{name}; the nearest is --{near}. Nothing was done.")


def main(arguments: list[str] | None = None) -> None:
    """Run one of ``COMMANDS``; what it returns is not printed, since each prints what a user needs."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or (HELP & set(words) and "--" not in words):  # a command that takes any option would take this one
        words = [*(word for word in words if word not in HELP), "--", "--help"]
    _check_options(words)
    fire.Fire(COMMANDS, command=words, name="python -m scripts.cli", serialize=lambda result: None)


if __name__ == "__main__":
    main()
