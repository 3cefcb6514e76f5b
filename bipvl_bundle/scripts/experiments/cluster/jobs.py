"""What the jobs of a set do on a node: a run each, and the comparison at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.experiments.compare import comparison_of, write_comparison
from scripts.experiments.description import ExperimentSet
from scripts.experiments.plan import Run
from scripts.experiments.runner import Runner
from scripts.whole_file import write_text

FAILED = "failed"
"""The folder with the reason of each run that failed."""


@dataclass
class RunJob:
    """Callable that completes one run of a set, and that submitit queues again when the node is taken away.

    Args:
        described: the set.
        name: of the experiment.
        fold: held out.
        seed: of the run.
        folder: of the jobs.
    """

    described: ExperimentSet
    name: str
    fold: int
    seed: int
    folder: Path
    runner: Runner | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, described: ExperimentSet, run: Run, folder: Path) -> RunJob:
        return cls(described, run.experiment.name, run.fold, run.seed, folder)

    def __call__(self) -> str:
        """Run what the run lacks.

        Raises:
            RuntimeError: it has failed.
        """
        self.runner = Runner(self.described, only=[self.name], fold_and_seed=(self.fold, self.seed))
        (run,) = self.runner.runs
        note = self.folder / FAILED / f"{self.name}_fold{self.fold}_seed{self.seed}.txt"
        note.unlink(missing_ok=True)
        failures = self.runner.run()
        if failures:
            note.parent.mkdir(parents=True, exist_ok=True)
            write_text(note, f"{run}\n{failures[str(run)]}\n")
            raise RuntimeError(f"{run}: {failures[str(run)]}")
        return self.runner.state(run)

    def checkpoint(self) -> Any:
        """Let the training end in order and return what is to be queued: the same run, which goes on from its state."""
        from submitit.helpers import DelayedSubmission

        if self.runner is not None:
            self.runner.processes.stop()
        return DelayedSubmission(RunJob(self.described, self.name, self.fold, self.seed, self.folder))


@dataclass
class CompareJob:
    """Callable that compares the runs of a set that are complete.

    Args:
        described: the set.
        chosen: names of the experiments that were run.
        folder: of the jobs.
        skipped: why runs were not submitted, by run.
    """

    described: ExperimentSet
    chosen: Sequence[str]
    folder: Path
    skipped: dict[str, str]

    def __call__(self) -> None:
        notes = sorted((self.folder / FAILED).glob("*.txt"))
        failures = dict(note.read_text(encoding="utf-8").splitlines()[:2] for note in notes)
        comparison = comparison_of(self.described, self.chosen, failures=failures, skipped=self.skipped)
        write_comparison(self.described.output, comparison, self.described.evaluate_on)
