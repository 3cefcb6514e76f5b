"""Sections that the pages of a training and of an evaluation share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.report.curves import Curve, curves_figure
from scripts.report.model_figures import attention_figure, sentences_figure, similarity_figure
from scripts.report.model_files import read_model_files
from scripts.report.page import Section, Table, picture

FILES = "report_files"


def facts_section(facts: Mapping[str, Any]) -> Section:
    """Return the section that says what was run."""
    section = Section("run", "What was run")
    skipped = {"title", "concepts"}
    rows = [[key, _plain(value)] for key, value in facts.items() if key not in skipped]
    if rows:
        section.tables.append(Table("Settings, versions and machine", ["", "value"], rows, is_text=True))
    return section


def guarded(title: str, make: Callable[[], list[Section]]) -> list[Section]:
    """Return sections; if their files are damaged or a library is absent, one that says so."""
    try:
        return make()
    except (ArithmeticError, ImportError, LookupError, OSError, RuntimeError, ValueError) as error:
        return [Section(title.split()[0].lower(), title, remarks=[f"Not shown: {type(error).__name__}: {error}"])]


def words_sections(files: Path, classes: Sequence[str], concepts: Sequence[str]) -> list[Section]:
    """Return what the model makes of its words: t-SNE, similarities, attention; empty where nothing was measured."""
    arrays, attention, remarks = read_model_files(files)
    sentences = Section("sentences", "Sentences and alignment")
    looks = Section("attention", "Where each sentence is looked at", remarks=list(remarks))
    if not arrays or not concepts:
        return [sentences]
    names = {"states_before": "before training", "states_after": "after training"}
    states = {title: arrays[name] for name, title in names.items() if name in arrays}
    if len(arrays["states_after"]) >= 4:
        drawn = sentences_figure(states, classes, concepts)
        alt = "t-SNE of the sentences, coloured by concept and by class: points close together are read alike."
        sentences.figures.append(picture(drawn, alt, "t-SNE of the [CLS] states of all sentences (Figure 1b)."))
    drawn = similarity_figure(arrays["similarities"], classes, concepts)
    alt = "Matrices of the cosines of image and text embeddings: an aligned model has its largest ones on the diagonal."
    caption = "Cosines of image (rows) and text (columns) embeddings, global and by concept (Figure 2d)."
    sentences.figures.append(picture(drawn, alt, caption))
    if attention:
        looks.text.append(
            "Weight of the image's cross-attention to each sentence, averaged over the heads, in a patch of one case. "
            "Entropy 1.00: every sentence gets the same weight. Contrast 0.00: a sentence gets the same weight "
            "everywhere. The classes' columns: weight of its own sentences in its mask as a multiple of that outside."
        )
        if not any(row["tells"] == "yes" for row in attention):
            looks.remarks.append(
                "At no stage is the weight clearly higher in a class's own mask: these maps say nothing."
            )
        head = [key.removeprefix("inside ") for key in attention[0]]
        looks.tables.append(Table("How much the maps say", head, [list(row.values()) for row in attention]))
        for row in attention:
            maps = arrays[f"attention_{row['stage']}"]
            spacing = np.linalg.norm(arrays["affine"][:3, :3], axis=0)
            drawn = attention_figure(arrays["image"], maps, arrays["masks"], classes, concepts, spacing)
            alt = f"Maps of the attention at stage {row['stage']}, a row per class and a column per concept."
            caption = f"Stage {row['stage']}; as a volume: {FILES}/attention_stage{row['stage']}.nii.gz."
            looks.figures.append(picture(drawn, alt, caption))
    return [sentences, looks]


def training_section(curves: Mapping[str, Curve]) -> Section:
    """Return the section of training curves, by `read_curves`; empty where there are none."""
    section = Section("training", "Training")
    if curves:
        alt = "Curves of losses, their weights, indicators of collapse, validation and learning rate over the epochs."
        section.figures.append(picture(curves_figure(curves), alt, "From the event files of the training."))
    return section


def number(text: object) -> str:
    """Return a cell of a table as it is shown: three digits after the point, a dash for no value."""
    text = str(text)
    try:
        value = float(text)
    except ValueError:
        return text
    return "-" if np.isnan(value) else text if value.is_integer() and "." not in text else f"{value:.3f}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
