"""The page of an evaluation, made of the files in its folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.report.case_figure import case_figure
from scripts.report.choice import mean_dice, typical_cases
from scripts.report.curves import read_curves
from scripts.report.kept_cases import load_case, read_index
from scripts.report.page import Page, Section, Table, picture, write_page
from scripts.report.score_figure import score_figure
from scripts.report.sections import FILES, facts_section, guarded, number, training_section, words_sections
from scripts.report.viewer import legend, write_library, write_viewer_case
from scripts.trust.parsing import read_mapping
from scripts.whole_file import read_rows

PAGE = "report.html"
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
    concepts = [str(name) for name in facts.get("concepts", [])]
    cases = Section("cases", "Cases")
    shown = add_cases(cases, {"prediction": scores}, typical_cases(mean_dice(rows)), files, classes)
    sections = [
        facts_section(facts),
        _scores(rows, read_rows(scores / SUMMARY)),
        cases,
        _reading(reading or run / "reading"),
        *guarded("Sentences and attention", lambda: words_sections(files, classes, concepts)),
        *guarded("Training curves", lambda: [training_section(read_curves(run / "tensorboard"))]),
    ]
    title = f"{facts.get('title', scores.parent.name)}: {facts.get('split', 'evaluation')}"
    page = Page(title, [s for s in sections if not s.empty], FILES, shown, legend(classes))
    write_page(scores / PAGE, page)
    return scores / PAGE


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
