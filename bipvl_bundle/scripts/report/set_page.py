"""The page of a set of experiments, made of the files of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from scripts.report.choice import mean_dice, most_different, typical_cases
from scripts.report.page import Link, Page, Section, Table, picture, write_page
from scripts.report.run_page import PAGE, PER_CASE, Rows, add_cases, read_rows
from scripts.report.score_figure import score_figure
from scripts.report.sections import number
from scripts.report.viewer import legend

MOST_MODELS = 5  # beside each other in a figure


@dataclass(frozen=True)
class RunFolder:
    """A run of an experiment: title of the experiment, fold and seed, and the folder of its scores."""

    title: str
    fold: int
    seed: int
    folder: Path


def write_set_page(
    output: Path, evaluate_on: str, runs: Sequence[RunFolder], tables: Mapping[str, Rows], reference: str = ""
) -> Path:
    """Write `report_SPLIT.html` into the folder of a set.

    Args:
        output: of the set
        evaluate_on: the split that was scored
        runs: in the order of the experiments
        tables: rows of comparisons, by their captions
        reference: title of the experiment whose cases are shown first; empty: the first one's

    Raises:
        ValueError: there is no run.
    """
    if not runs:
        raise ValueError(f"There is no run scored on '{evaluate_on}' below '{output}'.")
    files = output / f"report_{evaluate_on}_files"
    files.mkdir(exist_ok=True)
    rows: dict[str, Rows] = {}
    for run in runs:
        rows[run.title] = rows.get(run.title, []) + read_rows(run.folder / PER_CASE)
    classes = list(dict.fromkeys(row["class"] for found in rows.values() for row in found))
    comparison = Section("comparison", "Comparison")
    for caption, content in tables.items():
        if content:
            cells = [[number(value) for value in row.values()] for row in content]
            comparison.tables.append(Table(caption, list(content[0]), cells))
    alt = "Box plots of DSC, HD95 and NSD by class and experiment; the tables have their means."
    comparison.figures.append(picture(score_figure(rows), alt, "All cases of all runs."))
    cases = Section("cases", "Cases")
    models = _beside_each_other(runs, reference)
    shown = add_cases(cases, models, chosen_cases(models), files, classes)
    cases.text.append(
        f"Models of fold {runs[0].fold}, seed {runs[0].seed}"
        + (f", {MOST_MODELS} of {len(rows)}" if len(rows) > MOST_MODELS else "")
        + f". Best, median and worst are those of {next(iter(models))}."
    )
    links = [
        Link(found.relative_to(output).as_posix(), f"{run.title}, fold {run.fold}, seed {run.seed}")
        for run in runs
        if (found := run.folder / PAGE).is_file()
    ]
    sections = [comparison, cases, Section("runs", "Pages of the runs", links=links)]
    page = Page(
        f"{output.name}: {evaluate_on}",
        [section for section in sections if not section.empty],
        files.name,
        shown,
        legend(classes),
    )
    path = output / f"report_{evaluate_on}.html"
    write_page(path, page)
    return path


def chosen_cases(models: Mapping[str, Path]) -> dict[str, str]:
    """Return the best, median and worst case of the first model, and the case that each pair differs most in.

    Of the pairs the two with the largest difference count.
    """
    scores = {title: mean_dice(read_rows(folder / PER_CASE)) for title, folder in models.items()}
    chosen = typical_cases(next(iter(scores.values())))
    found = []
    for first, second in combinations(scores, 2):
        for case in most_different(scores[first], scores[second]):
            found.append((abs(scores[first][case] - scores[second][case]), case, f"{first} and {second} differ most"))
    for _, case, why in sorted(found, key=lambda one: -one[0])[:2]:
        chosen[case] = f"{chosen[case]}; {why}" if case in chosen else why
    return chosen


def _beside_each_other(runs: Sequence[RunFolder], reference: str) -> dict[str, Path]:
    """Return the folders of the reference and of further runs of one fold and seed, which have the same cases."""
    key = (runs[0].fold, runs[0].seed)
    ordered = sorted(runs, key=lambda run: run.title != reference)
    same = {run.title: run.folder for run in ordered if (run.fold, run.seed) == key}
    return dict(list(same.items())[:MOST_MODELS])
