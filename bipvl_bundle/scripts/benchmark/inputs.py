"""Benchmark inputs, so that nothing is downloaded and no patient needed: words, a text encoder, volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, BertConfig

from scripts.words.sentences import shuffle_words
from scripts.words.table import ConceptTable

BUNDLE = Path(__file__).resolve().parents[2]
SPACING = (0.75, 0.75, 2.5)  # mm: of a CT on disk; dataset_amos22.yaml resamples it to 1.5 x 1.5 x 2
TARGET = (1.5, 1.5, 2.0)  # mm


def concepts_for(classes: int) -> ConceptTable:
    """Make a concept table: AMOS22's fifteen organs, and further classes with the same words shuffled.

    Every further fifteen classes have sentences of the same numbers of words, and as many that are equal.
    """
    table = ConceptTable.load(BUNDLE / "configs" / "concepts" / "amos22.yaml")
    rounds = math.ceil(classes / len(table.classes))
    names = [name if turn == 0 else f"{name} {turn + 1}" for turn in range(rounds) for name in table.classes]
    rows = list(table.sentences)
    for turn in range(1, rounds):
        rows += shuffle_words(table.sentences, turn)
    return replace(
        table,
        classes=tuple(names[:classes]),
        sentences=tuple(rows[:classes]),
        codes=(),
        alternatives=(),
        source=f"words for {classes} classes",
    )


def write_text_encoder(folder: Path, **sizes: int) -> Path:
    """Write the configuration of a BERT (BERT-base by default) and the bundle's tokenizer; no weights."""
    AutoTokenizer.from_pretrained(BUNDLE / "models" / "text_encoder").save_pretrained(folder)
    BertConfig.from_dict({"vocab_size": 28996, **sizes}).save_pretrained(folder)
    return folder


def draw_balls(shape: Sequence[int], classes: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw a label map in which each class 1 to N is a ball of the size of an organ."""
    generator = np.random.default_rng(seed)
    label = np.zeros(shape, dtype=np.uint8)
    radius = max(min(shape) / 8, 1.5)
    for number in range(1, classes + 1):
        centre = [generator.uniform(min(radius, edge / 2), max(edge - radius, edge / 2)) for edge in shape]
        low = [max(int(c - radius), 0) for c in centre]
        box = tuple(slice(a, int(c + radius) + 1) for a, c in zip(low, centre, strict=True))
        part = label[box]
        grid = np.ogrid[tuple(slice(a, a + size) for a, size in zip(low, part.shape, strict=True))]
        part[sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2] = number
    return label


def write_case(folder: Path, voxels: Sequence[int], classes: int) -> dict[str, str]:
    """Write a synthetic CT and its labels as NIfTI that dataset_amos22.yaml resamples to a given size.

    Returns:
        the item of a datalist
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = [round(n * to / of) for n, to, of in zip(voxels, TARGET, SPACING, strict=True)]
    label = draw_balls(shape, classes)
    image = np.random.default_rng(1).normal(40, 20, shape).astype(np.int16) + 5 * label.astype(np.int16)
    affine = np.diag([*SPACING, 1.0])
    item = {}
    for name, array in (("image", image), ("label", label)):
        path = folder / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(array, affine), path)
        item[name] = str(path)
    return item
