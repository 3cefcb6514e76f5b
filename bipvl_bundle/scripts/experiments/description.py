"""Description of a set of experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUNDLE_ROOT = Path(__file__).resolve().parents[2]
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Experiment:
    """One experiment: a row of the comparison.

    Attributes:
        name: of its folder.
        title: of its row.
        overlays: config files on top of the set's base.
        options: on top of the overlays and of the set's options.
        evaluates: the experiment whose trained models are scored, under its overlays and options and then this
            one's; None to train.
    """

    name: str
    title: str
    overlays: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    evaluates: str | None = None


@dataclass(frozen=True)
class ExperimentSet:
    """Experiments x folds x seeds, and their common settings.

    Attributes:
        experiments: in the order of the table.
        output: one folder an experiment goes below it.
        base: config files below every experiment's overlays, the entry file first.
        evaluate: config files on top of them for evaluating.
        folds: to hold out, one run each.
        seeds: one run each. A seed also shuffles the cases into folds.
        options: of every experiment, training and evaluating.
        evaluation: options of evaluating alone.
        evaluate_on: "validation" or "test", as in `evaluate.yaml`.
        reference: the experiment that the others are tested against; None for no test.
        jobs: runs at a time.
        threads: of each run; None to leave it to PyTorch for one job, else to share the cores.
    """

    experiments: tuple[Experiment, ...]
    output: Path
    base: tuple[str, ...] = ("train.yaml",)
    evaluate: tuple[str, ...] = ("evaluate.yaml",)
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    options: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    evaluate_on: str = "validation"
    reference: str | None = None
    jobs: int = 1
    threads: int | None = None

    def find(self, name: str) -> Experiment:
        return next(experiment for experiment in self.experiments if experiment.name == name)

    def lineage(self, experiment: Experiment) -> list[Experiment]:
        """Return an experiment, preceded by the one whose models it evaluates if there is one."""
        return [*([self.find(experiment.evaluates)] if experiment.evaluates else []), experiment]

    def files(self, experiment: Experiment) -> list[Path]:
        names = [*self.base, *(name for part in self.lineage(experiment) for name in part.overlays)]
        return [config_path(name) for name in names]

    def options_of(self, experiment: Experiment) -> dict[str, Any]:
        merged = dict(self.options)
        for part in self.lineage(experiment):
            merged |= part.options
        return merged


def config_path(name: str) -> Path:
    """Return the path of a config file; a bare name is one of the bundle's `configs`."""
    path = Path(name).expanduser()
    return (BUNDLE_ROOT / "configs" / path if path.parent == Path() else path).absolute()
