"""The page of an evaluation, made of the files in its folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.report.case_figure import case_figure
from scripts.report.choice import mean_dice, typical_cases
from scripts.report.curves import curves_figure, read_curves
from scripts.report.kept_cases import load_case, read_index
from scripts.report.model_figures import attention_figure, sentences_figure, similarity_figure
from scripts.report.model_files import read_model_files
from scripts.report.page import Page, Section, Table, picture, write_page
from scripts.report.score_figure import score_figure
from scripts.report.viewer import legend, write_library, write_viewer_case
from scripts.trust.parsing import read_mapping
from scripts.whole_file import read_rows

PAGE = "report.html"
FILES = "report_files"
FACTS = "evaluation.json"
PER_CASE, SUMMARY = "metrics_per_case.csv", "metrics_summary.csv"
COLUMNS = {
    "class": "class",
    "dice_mean": "DSC",
    "dice_sd": "± sd",
    "dice_median": "median",
    "hd95_mm_mean": "HD95 (mm)",
    "hd95_mm_sd": "± sd",
    "nsd_mean": "NSD",
    "nsd_sd": "± sd",
    "missed": "missed",
    "spurious": "spurious",
    "cases": "cases",
}
Rows = list[dict[str, Any]]


def write_run_page(scores: Path, run: Path, reading: Path | None = None) -> Path:
    """Write `report.html` and its folder beside the scores of an evaluation.

    Args:
        scores: folder with `metrics_per_case.csv`
        run: folder with `tensorboard` of the training, where there is one
        reading: folder of the reading test; by default `reading` in the run's folder

    Raises:
        FileNotFoundError: there are no scores.
    """
    if not (scores / PER_CASE).is_file():
        raise FileNotFoundError(f"There is no '{scores / PER_CASE}': evaluate first, see configs/evaluate.yaml.")
    files = scores / FILES
    files.mkdir(exist_ok=True)
    facts = read_mapping(scores / FACTS, "facts of an evaluation") if (scores / FACTS).is_file() else {}
    rows = read_rows(scores / PER_CASE)
    classes = list(dict.fromkeys(row["class"] for row in rows))
    cases = Section("cases", "Cases")
    shown = add_cases(cases, {"prediction": scores}, typical_cases(mean_dice(rows)), files, classes)
    sections = [
        facts_section(facts),
        _scores(rows, read_rows(scores / SUMMARY)),
        cases,
        _reading(reading or run / "reading"),
        *_guarded("Sentences and attention", lambda: _words(files, classes, [*map(str, facts.get("concepts", []))])),
        *_guarded("Training curves", lambda: [_training(run / "tensorboard")]),
    ]
    title = f"{facts.get('title', scores.parent.name)}: {facts.get('split', 'evaluation')}"
    page = Page(title, [s for s in sections if not s.empty], FILES, shown, legend(classes))
    write_page(scores / PAGE, page)
    return scores / PAGE


def facts_section(facts: Mapping[str, Any]) -> Section:
    """Return the section that says what was run."""
    section = Section("run", "What was run")
    skipped = {"title", "concepts"}
    rows = [[key, _plain(value)] for key, value in facts.items() if key not in skipped]
    if rows:
        section.tables.append(Table("Settings, versions and machine", ["", "value"], rows, is_text=True))
    return section


def add_cases(
    section: Section, models: Mapping[str, Path], chosen: Mapping[str, str], files: Path, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Add a figure of each chosen case to a section, and write its volumes; return what the viewer must know.

    Args:
        section: that is added to
        models: folder of the scores of each
        chosen: cases, and why they were
        files: folder for the viewer
        classes: in label order
    """
    kept = {name: read_index(folder) for name, folder in models.items()}
    first = next(iter(kept.values()))
    shown: list[dict[str, Any]] = []
    if chosen and not first:
        section.remarks.append("No label maps were kept (`report: false`), so that no case can be shown.")
        return shown
    section.text.append(
        "Chosen by rule, by the mean DSC over the classes. Planes go through where most voxels are wrong; boxes are "
        "around the largest differences from the reference. The patient's right is on the left."
    )
    for case, why in chosen.items():
        try:
            volumes = load_case(
                first[case], dict(models), {name: index[case].prediction for name, index in kept.items()}
            )
        except (OSError, ValueError, KeyError) as error:
            section.remarks.append(f"Case {case} ({why}) cannot be shown: {error}")
            continue
        labels = {name: array for name, array in volumes.labels.items() if name != "reference"}
        figure = case_figure(volumes.image, volumes.labels["reference"], labels, classes, spacing=volumes.spacing)
        alt = f"Case {case} in three planes: image, reference, {', '.join(labels)}."
        section.figures.append(picture(figure, alt, f"{case}: {why}.", case))
        shown.append({**write_viewer_case(files, case, volumes), "title": f"{case} ({why})"})
    if shown:
        write_library(files)
    return shown


def _guarded(title: str, make: Callable[[], list[Section]]) -> list[Section]:
    """Return sections; if their files are damaged or a library is absent, one that says so."""
    try:
        return make()
    except (ArithmeticError, ImportError, LookupError, OSError, RuntimeError, ValueError) as error:
        return [Section(title.split()[0].lower(), title, remarks=[f"Not shown: {type(error).__name__}: {error}"])]


def _scores(rows: Rows, summary: Rows) -> Section:
    section = Section("scores", "Scores")
    section.text.append(
        "DSC and NSD from 0 to 1. A missed class, and a spurious one, count with 0; HD95 is over the others, so read "
        "it beside these counts."
    )
    if summary:
        cells = [[number(row[key]) for key in COLUMNS] for row in summary]
        section.tables.append(Table("Scores by class, over the cases", list(COLUMNS.values()), cells))
    alt = "Box plots of DSC, HD95 and NSD by class; the table above has their means and medians."
    section.figures.append(picture(score_figure({"model": rows}), alt, "Every case is in these boxes."))
    return section


def _reading(folder: Path) -> Section:
    section = Section("reading", "Does the model read?")
    rows = read_rows(folder / "reading.csv")
    if not rows:
        return section
    verdict = folder / "reading.md"
    if verdict.is_file():
        section.text.append(verdict.read_text(encoding="utf-8").split("\n")[0])
    head = ["wording", "DSC, own label", "DSC, label of the words", "classes missed"]
    cells = [[row["wording"], number(row["dice_own"]), number(row["dice_words"]), row["missed"]] for row in rows]
    section.tables.append(Table("The same cases in other words", head, cells))
    return section


def _words(files: Path, classes: Sequence[str], concepts: Sequence[str]) -> list[Section]:
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


def _training(folder: Path) -> Section:
    section = Section("training", "Training")
    curves = read_curves(folder)
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
