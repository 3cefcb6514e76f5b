"""The comparison of experiments as Markdown, as in the paper's tables, and as CSV rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scripts.experiments.comparison import PairedTest, Scored, Summary, check_comparable, paired_tests, summarise
from scripts.experiments.cost import Cost
from scripts.messages.tables import markdown
from scripts.metrics.report import METRICS

HEADS = {"dice": "DSC %", "hd95_mm": "HD95 mm", "nsd": "NSD %"}
SCALES = {"dice": 100.0, "hd95_mm": 1.0, "nsd": 100.0}
DASH = "–"  # noqa: RUF001 - an empty cell


@dataclass(frozen=True)
class CostColumn:
    """A column of what networks cost: the field of `Cost`, its head, its unit, and the format of a number."""

    field: str
    head: str
    unit: float = 1.0
    form: str = "{:.2f}"

    def text(self, cost: Cost) -> str:
        value = getattr(cost, self.field)
        return DASH if value is None else self.form.format(value / self.unit)


COSTS = (
    CostColumn("parameters", "params M", 1e6),
    CostColumn("operations", "GFLOPs", 1e9),
    CostColumn("iteration_seconds", "s/iteration", form="{:.3g}"),
    CostColumn("peak_bytes", "peak GiB", 2**30),
)
COST_NOTE = (
    "GFLOPs: of a forward of one ROI, two for each multiplication. s/iteration: the median of the training. Peak: of "
    "its memory; on a CPU the whole process's, with the cases that it keeps."
)


class Comparison:
    """Table of experiments side by side.

    Args:
        experiments: in the order of the rows; one without a run is named as missing.
        reference: name of the experiment that the others are tested against; None for no test.
        evaluate_on: the split that was scored, for the caption.
        failures: what went wrong, by run, for the notes.
        remarks: further notes.

    Raises:
        ValueError: the reference is none of the experiments, or they have scored different cases or classes.
    """

    def __init__(
        self,
        experiments: Sequence[Scored],
        *,
        reference: str | None = None,
        evaluate_on: str = "validation",
        failures: Mapping[str, str] | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        names = [experiment.name for experiment in experiments]
        if reference is not None and reference not in names:
            raise ValueError(f"The reference '{reference}' is none of the experiments: {', '.join(names) or 'none'}.")
        check_comparable(experiments)
        self.experiments = list(experiments)
        self.evaluate_on = evaluate_on
        self.failures = dict(failures or {})
        self.remarks = list(remarks)
        self.keys = sorted({key for experiment in experiments for key in experiment.runs})
        self.complete = [e for e in experiments if e.runs and len(e.runs) == len(self.keys)]
        self.summaries = {e.name: summarise(e) for e in experiments if e.runs}
        self.reference = next((e for e in self.complete if e.name == reference), None)
        self.wanted_reference = reference
        self.tests: dict[str, PairedTest] = {}
        if self.reference is not None:
            others = [e for e in self.complete if e is not self.reference]
            self.tests = paired_tests(self.reference, others)

    def markdown(self) -> str:
        """Return the table of means, its notes, and the DSC of each class."""
        if not self.summaries:
            return "No run is complete: there is nothing to compare.\n\n" + "\n".join(self._notes())
        return "\n".join([*self._main_table(), "", *self._notes(), "", *self._class_table(), ""])

    def summary_rows(self) -> list[dict[str, Any]]:
        """Return one row per experiment and class, the mean last: fractions and millimetres, unrounded."""
        rows = []
        for experiment in self.experiments:
            for summary in self.summaries.get(experiment.name, []):
                row: dict[str, Any] = {"experiment": experiment.name, "title": experiment.title}
                row |= {"class": summary.class_name, "runs": len(experiment.runs), "cases": summary.cases}
                for metric in METRICS:
                    row[f"{metric}_mean"] = summary.mean[metric]
                    row[f"{metric}_sd_cases"] = summary.sd_cases[metric]
                    row[f"{metric}_sd_runs"] = summary.sd_runs[metric]
                row |= {"missed": summary.missed, "present": summary.present, "spurious": summary.spurious}
                rows.append(row | asdict(experiment.cost))
        return rows

    def cost_rows(self) -> list[dict[str, Any]]:
        """Return one row per experiment with what its network costs, as text; none where nothing is known."""
        if all(e.cost == Cost() for e in self.experiments):
            return []
        return [
            {"experiment": e.title, **{c.head: c.text(e.cost) for c in COSTS}, "device": e.cost.device or DASH}
            for e in self.experiments
        ]

    def test_rows(self) -> list[dict[str, Any]]:
        """Return one row per tested experiment: differences of case-mean DSC, as fractions."""
        against = self.wanted_reference
        return [{"experiment": name, "reference": against, **vars(test)} for name, test in self.tests.items()]

    def _main_table(self) -> list[str]:
        tested = bool(self.tests)
        costs = [c for c in COSTS if any(getattr(e.cost, c.field) is not None for e in self.experiments)]
        heads = ["experiment", *HEADS.values(), "missed", *(column.head for column in costs)]
        heads += ["difference in DSC [95% CI]", "p (Holm)"] if tested else []
        best = {metric: self._best(metric) for metric in METRICS}
        rows = []
        for experiment in self.experiments:
            cells = [self._label(experiment)]
            summary = self._mean(experiment)
            cells += [self._score(summary, metric, best[metric]) for metric in METRICS]
            cells.append(DASH if summary is None else f"{summary.missed} of {summary.present}")
            cells += [column.text(experiment.cost) for column in costs]
            cells += self._test_cells(experiment) if tested else []
            rows.append(cells)
        return markdown(heads, rows, numbers=True)

    def _class_table(self) -> list[str]:
        shown = [e for e in self.experiments if e.name in self.summaries]
        rows = []
        for name in shown[0].class_names:
            row = {e.name: next((s for s in self.summaries[e.name] if s.class_name == name), None) for e in shown}
            best = _best_texts([_number(row[e.name], "dice") for e in shown if e in self.complete], max)
            cells = [_bold_if(_number(row[e.name], "dice"), best if e in self.complete else None) for e in shown]
            rows.append([name, *cells])
        return markdown(["DSC %", *(e.title for e in shown)], rows, numbers=True)

    def _notes(self) -> list[str]:
        notes = []
        if self.complete:
            runs, cases = len(self.keys), _span(self._mean(e).cases for e in self.complete)  # type: ignore[union-attr]
            over = f"the means of the {runs} runs (folds x seeds)" if runs > 1 else f"the {cases} cases of one run"
            notes.append(
                f"Mean over {cases} cases ({self.evaluate_on}) ± standard deviation over {over}: the mean over the "
                "classes, each over its cases, as in an evaluation. Best in bold. A missed class counts 0 in DSC and "
                "NSD; HD95 is over the classes that were found."
            )
            if len({self._mean(e).missed for e in self.complete}) > 1:  # type: ignore[union-attr]
                notes.append("Different numbers of classes were missed: HD95 has no best.")
        if any(getattr(e.cost, c.field) is not None for e in self.experiments for c in COSTS[1:]):
            notes.append(COST_NOTE)
        if self.tests:
            cases = _span(test.cases for test in self.tests.values())
            notes.append(
                f"Difference from '{self.reference.title}' in points of DSC, paired by case (n = {cases}), "  # type: ignore[union-attr]
                "with a bootstrap interval; p of Wilcoxon's signed-rank test, two-sided, after Holm's correction for "
                f"{len(self.tests)} experiment{'s' if len(self.tests) > 1 else ''}."
            )
        elif self.wanted_reference is not None and len(self.experiments) > 1:
            notes.append(f"No test: '{self.wanted_reference}' or all others lack runs, or cases with a score.")
        for experiment in self.experiments:
            lacking = [f"fold {fold} seed {seed}" for fold, seed in self.keys if (fold, seed) not in experiment.runs]
            if lacking or not experiment.runs:
                notes.append(f"INCOMPLETE: {experiment.name} lacks {', '.join(lacking) or 'every run'}.")
        notes += self.remarks
        notes += [f"FAILED: {run}: {reason}" for run, reason in self.failures.items()]
        return [line for note in notes for line in (note, "")][:-1]

    def _label(self, experiment: Scored) -> str:
        marks = ["reference"] if experiment.name == self.wanted_reference else []
        if experiment not in self.complete:
            marks.append(f"{len(experiment.runs)} of {len(self.keys)} runs")
        return experiment.title + (f" ({', '.join(marks)})" if marks else "")

    def _mean(self, experiment: Scored) -> Summary | None:
        return self.summaries[experiment.name][-1] if experiment.name in self.summaries else None

    def _best(self, metric: str) -> str | None:
        """Return the best printed value of a column; equal prints are all best."""
        summaries = [s for s in map(self._mean, self.complete) if s is not None]
        if metric == "hd95_mm" and len({summary.missed for summary in summaries}) > 1:
            return None
        return _best_texts([_number(s, metric) for s in summaries], min if metric == "hd95_mm" else max)

    def _score(self, summary: Summary | None, metric: str, best: str | None) -> str:
        text = _number(summary, metric)
        if summary is None or text == DASH:
            return DASH
        spread = (summary.sd_runs if len(self.keys) > 1 else summary.sd_cases)[metric]
        return _bold_if(text, best) + ("" if math.isnan(spread) else f" ± {spread * SCALES[metric]:.2f}")

    def _test_cells(self, experiment: Scored) -> list[str]:
        test = self.tests.get(experiment.name)
        if test is None:
            return [DASH, DASH]
        difference, low, high = (f"{100 * value:+.2f}" for value in (test.difference, test.low, test.high))
        return [f"{difference} [{low}, {high}]", "<0.001" if test.p_holm < 0.001 else f"{test.p_holm:.3f}"]


def _number(summary: Summary | None, metric: str) -> str:
    value = math.nan if summary is None else summary.mean[metric]
    return DASH if math.isnan(value) else f"{value * SCALES[metric]:.2f}"


def _span(counts: Iterable[int]) -> str:
    """Return one number if all are equal, else the least and the greatest."""
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _best_texts(texts: Sequence[str], choose: Callable[..., str]) -> str | None:
    """Return the best of at least two values, else None."""
    numbers = [text for text in texts if text != DASH]
    return choose(numbers, key=float) if len(numbers) > 1 else None


def _bold_if(text: str, best: str | None) -> str:
    return f"**{text}**" if text == best else text
