"""Statistics over the scores of several experiments, read from `metrics_per_case.csv` files."""

from __future__ import annotations

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap, wilcoxon

from scripts.experiments.cost import Cost
from scripts.metrics.report import MEAN_ROW, METRICS, mean_over_classes

RunKey = tuple[int, int]
"""Fold and seed."""


@dataclass(frozen=True)
class Score:
    """One row of `metrics_per_case.csv`: DSC and NSD from 0 to 1, HD95 in mm, NaN where there is no value."""

    case: str
    class_name: str
    dice: float
    hd95_mm: float
    nsd: float
    missed: bool
    spurious: bool
    present: bool


@dataclass(frozen=True)
class Scored:
    """The scores of one experiment.

    Attributes:
        name: of the experiment.
        title: of its row.
        runs: the scores of each fold and seed.
        cost: of its network.
    """

    name: str
    title: str
    runs: Mapping[RunKey, Sequence[Score]]
    cost: Cost = field(default_factory=Cost)

    @property
    def class_names(self) -> list[str]:
        return list(dict.fromkeys(score.class_name for scores in self.runs.values() for score in scores))


@dataclass(frozen=True)
class Summary:
    """Mean scores of one experiment and class, or of the mean over its classes.

    Attributes:
        mean: of each metric, over the cases that have a value; a case counts with the mean of its runs. That of the
            mean over the classes is `mean_over_classes`.
        sd_cases: sample standard deviation over those cases, of the means over their classes.
        sd_runs: the same over the means of the runs; NaN for a single run.
        cases: that have a DSC.
        missed: pairs of case, class and run with the class in the reference alone.
        present: pairs with the class in the reference.
        spurious: pairs with the class in the prediction alone.
    """

    class_name: str
    mean: Mapping[str, float] = field(default_factory=dict)
    sd_cases: Mapping[str, float] = field(default_factory=dict)
    sd_runs: Mapping[str, float] = field(default_factory=dict)
    cases: int = 0
    missed: int = 0
    present: int = 0
    spurious: int = 0


@dataclass(frozen=True)
class PairedTest:
    """Result of testing an experiment against the reference, paired by case.

    Attributes:
        difference: mean of the experiment's value less the reference's.
        low: lower end of the 95% bootstrap interval of that mean.
        high: its upper end.
        p: of Wilcoxon's signed-rank test, two-sided, as it comes.
        p_holm: the same after Holm's correction for the number of experiments tested.
        cases: pairs.
    """

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    cases: int


def read_scores(path: str | Path) -> list[Score]:
    """Read the rows of a `metrics_per_case.csv`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: columns are missing, a number is none, or a case has a class twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There are no scores '{path}'; evaluate that run first.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        expected = {"case", "class", *METRICS, "missed", "spurious", "voxels_reference"}
        absent = sorted(expected - set(reader.fieldnames or ()))
        if absent:
            raise ValueError(f"'{path}' lacks the columns {', '.join(absent)}; expected what evaluating writes.")
        try:
            scores = [_score(row) for row in reader]
        except (TypeError, ValueError) as error:
            raise ValueError(f"'{path}' is damaged: {error}. Evaluate that run again.") from error
    pairs = [(score.case, score.class_name) for score in scores]
    if len(set(pairs)) < len(pairs):
        twice = next(pair for pair in pairs if pairs.count(pair) > 1)
        raise ValueError(f"'{path}' has case '{twice[0]}' twice; cases are compared by name and must differ in it.")
    return scores


def check_comparable(experiments: Sequence[Scored]) -> None:
    """Raise an error if experiments scored different cases or classes in runs of one fold and seed.

    Raises:
        ValueError: they have not; the experiments and the first differences are named.
    """
    first: dict[RunKey, Scored] = {}
    for experiment in experiments:
        for key, scores in experiment.runs.items():
            other = first.setdefault(key, experiment)
            for what in ("case", "class_name"):
                mine, theirs = ({getattr(s, what) for s in found} for found in (scores, other.runs[key]))
                if mine != theirs:
                    raise ValueError(
                        f"'{experiment.name}' and '{other.name}' cannot be compared: on fold {key[0]}, seed {key[1]} "
                        f"they have scored different {'cases' if what == 'case' else 'classes'}, "
                        f"{sorted(mine ^ theirs)[:4]} in one of them alone. Evaluate both on the same data."
                    )


def case_values(experiment: Scored, metric: str, class_name: str | None = None) -> dict[str, float]:
    """Return one value per case: the mean over its classes (or one class), then over the runs that scored it.

    Classes without a value in a run are left out of its mean; a case without any is not in the result.
    """
    per_run = defaultdict(list)
    for scores in experiment.runs.values():
        for case, value in _case_means(scores, metric, class_name).items():
            per_run[case].append(value)
    return {case: statistics.fmean(values) for case, values in sorted(per_run.items())}


def summarise(experiment: Scored) -> list[Summary]:
    """Return a summary per class, and last that of the mean over the classes."""
    classes = [_summary(experiment, name) for name in experiment.class_names]
    means = {metric: mean_over_classes(summary.mean[metric] for summary in classes) for metric in METRICS}
    return [*classes, replace(_summary(experiment, None), mean=means)]


def paired_tests(reference: Scored, others: Sequence[Scored]) -> dict[str, PairedTest]:
    """Run Wilcoxon's signed-rank test of each experiment's DSC against the reference's, over the cases.

    Cases of all folds are pooled, a case's seeds averaged. Pairs without a difference are left out of the test
    and kept in the mean; without any difference p is 1. A case that holds no class has a value only where
    something was predicted: it is paired where both have one, and an experiment without a single pair is not in
    the result. Folds share training cases, so that their cases are not quite independent: read a p near the
    threshold with care.

    Raises:
        ValueError: an experiment has not the runs of the reference, or has scored other cases.
    """
    check_comparable([reference, *others])
    theirs = case_values(reference, "dice")
    found: dict[str, tuple[np.ndarray, float]] = {}
    for other in others:
        lone = [f"fold {fold} seed {number}" for fold, number in sorted(set(other.runs) ^ set(reference.runs))]
        if lone:
            raise ValueError(
                f"'{other.name}' cannot be tested against '{reference.name}': one of them alone has "
                f"{', '.join(lone[:4])}. Complete both."
            )
        mine = case_values(other, "dice")
        differences = np.array([mine[case] - value for case, value in theirs.items() if case in mine])
        if len(differences):
            found[other.name] = differences, _signed_rank(differences)
    corrected = holm([p for _, p in found.values()])
    return {
        name: PairedTest(float(d.mean()), *bootstrap_interval(d), p, adjusted, len(d))
        for (name, (d, p)), adjusted in zip(found.items(), corrected, strict=True)
    }


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of bootstrapped means; of one value, that value."""
    if len(values) == 1:
        return float(values[0]), float(values[0])
    drawn = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0))
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Apply Holm's step-down correction: the k-th smallest of m times m - k + 1, never below the one before it."""
    order = sorted(range(len(p_values)), key=lambda n: p_values[n])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, n in enumerate(order):
        largest = max(largest, min(1.0, p_values[n] * (len(p_values) - rank)))
        corrected[n] = largest
    return corrected


def _signed_rank(differences: np.ndarray) -> float:
    differences = differences[np.abs(differences) > 1e-9]  # the files hold six decimals
    return float(wilcoxon(differences).pvalue) if len(differences) else 1.0


def _score(row: Mapping[str, str]) -> Score:
    return Score(
        case=row["case"],
        class_name=row["class"],
        dice=float(row["dice"]),
        hd95_mm=float(row["hd95_mm"]),
        nsd=float(row["nsd"]),
        missed=row["missed"] == "True",
        spurious=row["spurious"] == "True",
        present=float(row["voxels_reference"]) > 0,
    )


def _case_means(scores: Iterable[Score], metric: str, class_name: str | None) -> dict[str, float]:
    values = defaultdict(list)
    for score in scores:
        value = getattr(score, metric)
        if class_name in (None, score.class_name) and not math.isnan(value):
            values[score.case].append(value)
    return {case: statistics.fmean(found) for case, found in values.items()}


def _run_mean(scores: Sequence[Score], metric: str, class_names: Sequence[str]) -> float:
    return mean_over_classes(_mean(list(_case_means(scores, metric, name).values())) for name in class_names)


def _summary(experiment: Scored, class_name: str | None) -> Summary:
    scores = [s for run in experiment.runs.values() for s in run if class_name in (None, s.class_name)]
    mean, sd_cases, sd_runs = {}, {}, {}
    for metric in METRICS:
        cases = list(case_values(experiment, metric, class_name).values())
        names = experiment.class_names if class_name is None else [class_name]
        runs = [_run_mean(run, metric, names) for run in experiment.runs.values()]
        mean[metric] = _mean(cases)
        sd_cases[metric] = _deviation(cases)
        sd_runs[metric] = _deviation([value for value in runs if not math.isnan(value)])
    return Summary(
        class_name=MEAN_ROW if class_name is None else class_name,
        mean=mean,
        sd_cases=sd_cases,
        sd_runs=sd_runs,
        cases=len(case_values(experiment, "dice", class_name)),
        missed=sum(score.missed for score in scores),
        present=sum(score.present for score in scores),
        spurious=sum(score.spurious for score in scores),
    )


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan
