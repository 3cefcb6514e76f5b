"""Runs what is missing in a set of experiments."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from scripts.configuration.check import check_config
from scripts.configuration.errors import SWITCH
from scripts.experiments.cost import parameters_in
from scripts.experiments.description import BUNDLE_ROOT, ExperimentSet
from scripts.experiments.nnunet.environment import ensure_environment
from scripts.experiments.nnunet.step import NnunetStep
from scripts.experiments.plan import Run, plan_runs
from scripts.experiments.process import Processes, read_failure, termination_as_interrupt
from scripts.experiments.records import differences
from scripts.experiments.steps import Identity, Step
from scripts.messages.phrases import duration, first_lines, root_cause

SKIP = "to skip: "
"""How the state of a run begins that cannot be run here; the reason follows."""
Launch = Callable[[list[str], Path, Mapping[str, str]], int]


def print_now(text: str) -> None:
    """Print a line at once, in a file too."""
    print(text, flush=True)


class Runner:
    """Completes the runs of a set, one after the other or a few at a time.

    A run that is complete is skipped, one that was killed goes on from its last epoch, one that fails or cannot be run
    here is shown and the others go on. Nothing of the state is in memory: it is all in the folders of the runs.

    Args:
        described: the set.
        only: names of the experiments to run; all by default.
        fold_and_seed: of the runs to do; all by default.
        launch: runs a command with a log and further environment variables, returns its exit status; by default
            a child process.
        print_line: takes each line of progress.
    """

    def __init__(
        self,
        described: ExperimentSet,
        *,
        only: Sequence[str] | None = None,
        fold_and_seed: tuple[int, int] | None = None,
        launch: Launch | None = None,
        print_line: Callable[[str], None] = print_now,
    ) -> None:
        self.described = described
        self.planned = plan_runs(described)
        self.runs = [run for run in self.planned if only is None or run.experiment.name in only]
        if fold_and_seed is not None:
            self.runs = [run for run in self.runs if (run.fold, run.seed) == fold_and_seed]
        self.processes = Processes()
        self.launch = launch or self.processes.run
        self.print_line = print_line
        self.failures: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self._identities: dict[Path, Identity] = {}
        self._begun = time.monotonic()
        self._seconds: list[float] = []
        self._finished = 0

    def check(self) -> None:
        """Check everything that can be known before hours of work; writes nothing but a missing data set.

        Raises:
            ValueError: an overlay is absent, a config set has a problem, a fold does not exist, a folder is that
                of another configuration, or two experiments would score different cases; every experiment
                concerned is named.
        """
        self._check_configs()
        compared = [run for run in self.planned if run in self.runs or self.state(run) == "complete"]
        _refuse([text for run in compared for text in _folder_problems(run, self._remembered_identity)])
        _refuse(list(self._case_problems(compared)))

    def check_without_data(self) -> None:
        """Do the part of `check` that needs no data.

        Raises:
            ValueError: an overlay is absent, a config set has a problem, a fold does not exist, or a folder is that
                of another configuration.
        """
        self._check_configs()
        _refuse([text for run in self.runs for text in _folder_problems(run, Step.settings)])

    def run(self) -> dict[str, str]:
        """Run what is not complete; returns the failures by run."""
        self._begun = time.monotonic()
        self.prepare()
        waves = [[r for r in self.runs if (r.experiment.evaluates is None) == trains] for trains in (True, False)]
        with termination_as_interrupt(), ThreadPoolExecutor(self.described.jobs) as pool:
            try:
                for wave in waves:
                    futures = [pool.submit(self._work, run) for run in wave]
                    wait(futures)
                    for future in futures:
                        future.result()
            except BaseException:
                self.processes.stop()  # whatever is still waiting for its turn sees this and does nothing
                self.print_line("Stopped. The same command goes on from here.")
                raise
        return self.failures

    def prepare(self) -> None:
        """Make the environments of other programs that rows ask for; two runs at a time would make one together."""
        steps = [step for run in self.runs for step in run.steps if isinstance(step, NnunetStep) and not step.is_done()]
        for folder in dict.fromkeys(step.environment for step in steps if step.nnunet.get("install")):
            ensure_environment(folder)

    def state(self, run: Run) -> str:
        """Return in a word or two what is to be done for a run."""
        if all(step.is_done() for step in run.steps):
            return "complete"
        obstacle = next((step.obstacle for step in run.steps if step.obstacle), None)
        if obstacle:
            return SKIP + obstacle
        if run.steps[0].is_done():
            return "to evaluate"
        return "to resume" if run.steps[0].resumable else "to run"

    def _check_configs(self) -> None:
        one_each = {run.experiment.name: run for run in self.runs}
        _refuse([text for run in one_each.values() for text in _config_problems(run)])

    def _remembered_identity(self, step: Step) -> Identity:
        self._identities[step.folder] = step.identity()
        return self._identities[step.folder]

    def _case_problems(self, runs: Sequence[Run]) -> Iterator[str]:
        first: dict[tuple[int, int], tuple[Run, set[str]]] = {}
        for run in runs:
            cases = set(self._identities[run.steps[-1].folder]["cases"])
            other, theirs = first.setdefault((run.fold, run.seed), (run, cases))
            if cases != theirs:
                names = ", ".join(sorted(cases ^ theirs)[:4])
                yield f"{run} and {other} would score different cases ({names} in one alone): not to be compared"

    def _work(self, run: Run) -> None:
        if self.processes.stopped:
            return
        begun, state = time.monotonic(), self.state(run)
        if state.startswith(SKIP):
            self.skipped[str(run)] = state.removeprefix(SKIP)
            self._report(run, f"SKIPPED: {self.skipped[str(run)]}")
            return
        try:
            for step in run.steps:
                if not step.is_done():
                    self._do(run, step)
        except Exception as error:  # of whatever kind: the other runs go on
            if self.processes.stopped:
                return
            self.failures[str(run)] = first_lines(error)
            self._report(run, f"FAILED: {error}")
        else:
            if state != "complete":
                self._seconds.append(time.monotonic() - begun)
            self._report(run, "complete, skipped" if state == "complete" else f"done in {duration(self._seconds[-1])}")

    def _do(self, run: Run, step: Step) -> None:
        identity = step.identity()
        step.check_folder(identity)
        changes = list(differences(self._identities.setdefault(step.folder, identity), identity))
        if changes:
            raise RuntimeError(f"its configuration has changed since the set was started: {'; '.join(changes[:6])}.")
        if step.needs is not None and not step.needs.is_done():
            raise RuntimeError(f"there is no trained model in '{step.needs.folder}'.")
        resumed = step.resumable
        command = step.start(identity)
        self.print_line(f"  {run}: {step.run_id}{', resumed' if resumed else ''}; log: {_relative(step.log)}")
        begun = time.monotonic()
        status = self.launch(command, step.log, self._environment())
        if status:
            reason, tail = read_failure(step.log)
            ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}{reason}"
            raise RuntimeError(f"{step.run_id} {ended}\n{tail}\n    log: {step.log}")
        step.finish(identity, command, **self._facts(run, step), resumed=resumed, seconds=time.monotonic() - begun)

    def _facts(self, run: Run, step: Step) -> dict[str, Any]:
        experiment = run.experiment
        facts: dict[str, Any] = {"experiment": experiment.name, "title": experiment.title}
        facts |= {"position": self.described.experiments.index(experiment), "fold": run.fold, "seed": run.seed}
        if step is run.steps[-1]:
            facts |= {"evaluate_on": self.described.evaluate_on, "reference": self.described.reference}
            facts |= {"parameters": None if step.needs is None else parameters_in(step.needs.product)}
        return facts

    def _environment(self) -> dict[str, str]:
        threads = self.described.threads
        if threads is None and self.described.jobs > 1:
            threads = max(1, (os.cpu_count() or 1) // self.described.jobs)
        # For a log that is short and up to date, and has the traceback of what fails.
        shared = {"TQDM_MININTERVAL": "30", "PYTHONUNBUFFERED": "1", SWITCH: "1"}
        shared["PYTHONPATH"] = os.pathsep.join(filter(None, (str(BUNDLE_ROOT), os.environ.get("PYTHONPATH"))))
        return shared if threads is None else {**shared, "OMP_NUM_THREADS": str(threads)}

    def _report(self, run: Run, text: str) -> None:
        self._finished += 1
        left, elapsed = len(self.runs) - self._finished, time.monotonic() - self._begun
        times = f"elapsed {duration(elapsed)}"
        if left and self._seconds:
            mean = sum(self._seconds) / len(self._seconds)
            times += f", at most about {duration(mean * left / self.described.jobs)} to go"
        self.print_line(
            f"[{self._finished} of {len(self.runs)}] {run}: {text}" + (f" ({times})" if self._seconds else "")
        )


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        lines = "\n".join(f"  {text}" for text in dict.fromkeys(problems))
        raise ValueError(f"The set cannot be run; nothing was started:\n{lines}")


def _config_problems(run: Run) -> list[str]:
    found: list[str] = []
    for step in run.steps:
        try:
            problems = check_config([str(path) for path in step.files], **step.options)
        except (FileNotFoundError, ValueError, RuntimeError) as error:
            problems = [str(error)]
        found += [f"experiment '{run.experiment.name}': {text}" for text in problems]
    return found


def _folder_problems(run: Run, identify: Callable[[Step], Identity]) -> list[str]:
    found = []
    for step in run.steps:
        try:
            step.check_folder(identify(step))
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            found.append(f"{run}: {root_cause(error)}")
    return found


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
