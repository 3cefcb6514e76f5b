"""The command `compare`: compares the completed runs of a set from the files in their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.experiments.comparison import Scored, read_scores
from scripts.experiments.comparison_table import Comparison
from scripts.experiments.cost import cost_of_run
from scripts.experiments.description import SPLITS, ExperimentSet
from scripts.experiments.plan import plan_runs
from scripts.experiments.steps import MARKER
from scripts.report.safely import or_warn
from scripts.report.set_page import RunFolder, write_set_page
from scripts.whole_file import write_rows, write_text

PER_CASE = "metrics_per_case.csv"
SHOWN = {"title": "experiment", "class": "class", "runs": "runs", "cases": "cases", "dice_mean": "DSC"}
SHOWN |= {"dice_sd_runs": "± sd of runs", "hd95_mm_mean": "HD95 (mm)", "nsd_mean": "NSD"}
SHOWN |= {"missed": "missed", "spurious": "spurious"}


def compare_runs(output: str, reference: str | None = None, evaluate_on: str = "validation") -> None:
    """Print and write the comparison of the complete runs below a folder, without running any.

    Args:
        output: the `output` of a set of experiments
        reference: name of the experiment that the others are tested against
        evaluate_on: the split that was scored, validation or test
    """
    if evaluate_on not in SPLITS:
        raise ValueError(f"evaluate_on is '{evaluate_on}'; expected one of {', '.join(SPLITS)}.")
    folder = Path(output).expanduser()
    markers = find_markers(folder, evaluate_on)
    comparison = Comparison(
        scored_of(markers), reference=reference, evaluate_on=evaluate_on, remarks=remarks_on(markers)
    )
    write_comparison(folder, comparison, evaluate_on)


def find_markers(output: Path, evaluate_on: str) -> list[Path]:
    """Return the markers of all runs below `output` that are scored on a split.

    Raises:
        FileNotFoundError: there is none.
    """
    markers = sorted(output.glob(f"*/fold*_seed*/{evaluate_on}/{MARKER}"))
    if not markers:
        raise FileNotFoundError(
            f"There is no completed run scored on '{evaluate_on}' below '{output}'; expected "
            f"EXPERIMENT/foldN_seedN/{evaluate_on}/{MARKER}, as a set of experiments makes them."
        )
    return markers


def scored_of(markers: Sequence[Path]) -> list[Scored]:
    """Return the scores of runs by their markers, in the order of the set that ran them, and what the networks cost."""
    records = sorted(((_read(path), path.parent) for path in markers), key=lambda pair: pair[0]["position"])
    by_name: dict[str, list[tuple[dict[str, Any], Path]]] = {}
    for record, folder in records:
        by_name.setdefault(record["experiment"], []).append((record, folder))
    return [_scored(name, pairs) for name, pairs in by_name.items()]


def scored_in(described: ExperimentSet, markers: Sequence[Path]) -> list[Scored]:
    """Return the scores in the order and with the titles of a set, including experiments without a run."""
    found = {scored.name: scored for scored in scored_of(markers)}
    empty = {experiment.name: Scored(experiment.name, experiment.title, {}) for experiment in described.experiments}
    return [replace(found.get(e.name, empty[e.name]), title=e.title) for e in described.experiments]


def comparison_of(
    described: ExperimentSet,
    chosen: Sequence[str],
    *,
    failures: Mapping[str, str] | None = None,
    skipped: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare the complete runs of a set: of the chosen experiments, of the reference, and of earlier calls.

    Args:
        described: the set.
        chosen: names of experiments that are in the table without a run too.
        failures: what went wrong, by run.
        skipped: why runs were not done, by run.
    """
    markers = [run.steps[-1].marker for run in plan_runs(described) if run.steps[-1].is_done()]
    wanted = {*chosen, described.reference}
    return Comparison(
        [scored for scored in scored_in(described, markers) if scored.runs or scored.name in wanted],
        reference=described.reference,
        evaluate_on=described.evaluate_on,
        failures=failures,
        remarks=[*remarks_on(markers), *(f"SKIPPED: {run}: {reason}" for run, reason in (skipped or {}).items())],
    )


def remarks_on(markers: Sequence[Path]) -> list[str]:
    """Return remarks on differences between the runs that a reader of the comparison should know."""
    versions = {_read(path)["code"] for path in markers}
    return [f"The runs were made by {len(versions)} versions of the code, see run.json."] if len(versions) > 1 else []


def write_comparison(output: Path, comparison: Comparison, evaluate_on: str) -> None:
    """Print the comparison, and write it as Markdown and CSV beside the experiments' folders."""
    text = comparison.markdown()
    print(f"\n{text}")
    output.mkdir(parents=True, exist_ok=True)
    stem = output / f"comparison_{evaluate_on}"
    write_text(stem.with_suffix(".md"), text)
    _replace_rows(stem.with_suffix(".csv"), comparison.summary_rows())
    _replace_rows(output / f"tests_{evaluate_on}.csv", comparison.test_rows())
    print(f"Written to {stem}.md and .csv")
    or_warn("The page of the set could not be written", lambda: _write_page(output, comparison, evaluate_on))


def _write_page(output: Path, comparison: Comparison, evaluate_on: str) -> None:
    titles = {scored.name: scored.title for scored in comparison.experiments}
    if len(set(titles.values())) < len(titles):
        titles = {name: name for name in titles}
    records = sorted(
        ((_read(path), path.parent) for path in find_markers(output, evaluate_on)),
        key=lambda pair: (pair[0]["seed"], pair[0]["fold"], pair[0]["position"]),
    )
    runs = [
        RunFolder(titles[record["experiment"]], record["fold"], record["seed"], folder)
        for record, folder in records
        if record["experiment"] in titles
    ]
    scores = [{SHOWN[key]: row[key] for key in SHOWN} for row in comparison.summary_rows()]
    tables = {"Scores": scores, "Paired tests, differences of the DSC": comparison.test_rows()}
    tables |= {"What the networks cost": comparison.cost_rows()}
    reference = titles.get(comparison.wanted_reference or "", "")
    print(f"Written to {write_set_page(output, evaluate_on, runs, tables, reference)}")


def _scored(name: str, records: Sequence[tuple[Mapping[str, Any], Path]]) -> Scored:
    runs = {(record["fold"], record["seed"]): read_scores(folder / PER_CASE) for record, folder in records}
    cost = cost_of_run(records[0][1])
    parameters = records[-1][0]["parameters"] or cost.parameters
    return Scored(name, records[-1][0]["title"], runs, replace(cost, parameters=parameters))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _replace_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        path.unlink(missing_ok=True)  # of an earlier comparison, which it would contradict
        return
    write_rows(path, rows)
