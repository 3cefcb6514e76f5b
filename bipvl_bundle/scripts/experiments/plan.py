"""The runs of a set of experiments, each with its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.experiments.description import BUNDLE_ROOT, Experiment, ExperimentSet, config_path
from scripts.experiments.nnunet.step import NnunetStep
from scripts.experiments.steps import Step, run_folder


@dataclass(frozen=True)
class Run:
    """One experiment, fold and seed: training and evaluating, or evaluating the model of another run, or nnU-Net."""

    experiment: Experiment
    fold: int
    seed: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return f"{self.experiment.name} fold {self.fold} seed {self.seed}"


def plan_runs(described: ExperimentSet) -> list[Run]:
    """Return all runs of a set: all experiments on the first fold, then on the next; evaluations of others last."""
    order = [(seed, fold) for seed in described.seeds for fold in described.folds]
    trained = [e for e in described.experiments if e.evaluates is None]
    others = [e for e in described.experiments if e.evaluates is not None]
    return [_run(described, e, fold, seed) for group in (trained, others) for seed, fold in order for e in group]


def _run(described: ExperimentSet, experiment: Experiment, fold: int, seed: int) -> Run:
    if experiment.nnunet is not None:
        return Run(experiment, fold, seed, (_nnunet(described, experiment, fold, seed),))
    trainer = described.lineage(experiment)[0]
    training = _training(described, trainer, fold, seed)
    folder = run_folder(described.output, experiment.name, fold, seed) / described.evaluate_on
    options = {
        **described.options_of(experiment),
        **described.evaluation,
        **_places(training.folder, folder, fold, seed),
        "evaluate_on": described.evaluate_on,
        "metrics_dir": str(folder),
        "ckpt_path": str(training.product),
    }
    files = (*described.files(experiment), *map(config_path, described.evaluate))
    evaluating = Step("evaluating", folder, files, options, folder / "metrics_per_case.csv", needs=training)
    return Run(experiment, fold, seed, (evaluating,) if experiment.evaluates else (training, evaluating))


def _training(described: ExperimentSet, experiment: Experiment, fold: int, seed: int) -> Step:
    folder = run_folder(described.output, experiment.name, fold, seed)
    options = {**described.options_of(experiment), **_places(folder, folder, fold, seed)}
    return Step("training", folder, tuple(described.files(experiment)), options, folder / "model.pt")


def _nnunet(described: ExperimentSet, experiment: Experiment, fold: int, seed: int) -> NnunetStep:
    around = run_folder(described.output, experiment.name, fold, seed)
    folder = around / described.evaluate_on
    options = {**described.options_of(experiment), **described.evaluation, **_places(around, around, fold, seed)}
    options |= {"evaluate_on": described.evaluate_on, "metrics_dir": str(folder)}
    files = (*described.files(experiment), *map(config_path, described.evaluate))
    wanted = {"output": str(described.output), "name": experiment.name, "title": experiment.title}
    step = NnunetStep("nnunet", folder, files, options, folder / "metrics_per_case.csv")
    return replace(step, row=wanted, nnunet=experiment.nnunet or {})


def _places(ckpt_dir: Path, output_dir: Path, fold: int, seed: int) -> dict[str, Any]:
    places = {"bundle_root": str(BUNDLE_ROOT), "ckpt_dir": str(ckpt_dir), "output_dir": str(output_dir)}
    return {**places, "fold": fold, "seed": seed}
