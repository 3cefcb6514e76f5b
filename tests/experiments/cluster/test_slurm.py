"""What is submitted, with an executor that stands for submitit's; `tests/bundle/test_slurm.py` has a real Slurm."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from scripts.experiments.cluster import slurm
from scripts.experiments.cluster.limits import Limits
from scripts.experiments.cluster.slurm import submit
from scripts.experiments.commands import run_experiments
from scripts.experiments.description import ExperimentSet
from scripts.experiments.runner import Runner


class Executors:
    """Remembers what was submitted: limits, name, what it comes after, and the callables."""

    def __init__(self) -> None:
        self.batches: list[tuple[Limits, str, list[str], list[Any]]] = []

    def __call__(self, folder: Path, limits: Limits) -> Any:
        def make(wanted: Limits, name: str, after: Any = ()) -> Any:
            jobs: list[Any] = []
            self.batches.append((wanted, name, list(after), jobs))
            number = 10 + len(self.batches)

            @contextmanager
            def batch() -> Any:
                yield

            def add(job: Any) -> Any:
                jobs.append(job)
                return SimpleNamespace(job_id=f"{number}_{len(jobs) - 1}")

            return SimpleNamespace(batch=batch, submit=add)

        return make


@pytest.fixture
def executors(monkeypatch: pytest.MonkeyPatch) -> Executors:
    found = Executors()
    monkeypatch.setattr(slurm, "executor_maker", found)
    return found


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def runner(described: ExperimentSet, said: list[str]) -> Runner:
    return Runner(described, print_line=said.append)


def test_runs_then_evaluations_of_their_models_then_the_comparison(
    runner: Runner, executors: Executors, described: ExperimentSet
) -> None:
    limits = Limits(partition="gpu", cpus=8)
    assert len(submit(runner, limits, ["full", "wide", "named"])) == 3
    (trained, evaluated, compared) = executors.batches
    assert [(j.name, j.fold) for j in trained[3]] == [("full", 0), ("wide", 0), ("full", 1), ("wide", 1)]
    assert [(j.name, j.fold) for j in evaluated[3]] == [("named", 0), ("named", 1)]
    assert [batch[2] for batch in executors.batches] == [[], ["11"], ["11", "12"]]
    assert trained[0] == evaluated[0] == limits
    assert (compared[0].partition, compared[0].gpus) == ("gpu", 0)
    assert {job.described.threads for job in trained[3]} == {8}
    assert json.loads((described.output / "slurm/submitted.json").read_text()) == ["11", "12", "13_0"]


def test_what_is_complete_is_not_submitted(
    runner: Runner, executors: Executors, described: ExperimentSet, launch: Any, said: list[str]
) -> None:
    Runner(described, launch=launch, only=["full"]).run()
    submit(runner, Limits(), [])
    assert [(j.name, j.fold) for j in executors.batches[0][3]] == [("wide", 0), ("wide", 1)]
    Runner(described, launch=launch).run()
    executors.batches.clear()
    assert submit(Runner(described, print_line=said.append), Limits(), []) == []
    assert executors.batches == []
    assert said[-1] == "Nothing to submit: every run is complete."


def test_dry_run_prints_and_needs_neither_submitit_nor_slurm(
    runner: Runner, described: ExperimentSet, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert submit(runner, Limits(minutes=90, parallel=2), [], dry_run=True) == []
    assert said == [
        "1. array of 4, at most 2 at a time: 90 minutes, 4 cpus, 1 gpus",
        "   full fold 0 seed 0: to run",
        "   wide fold 0 seed 0: to run",
        "   full fold 1 seed 0: to run",
        "   wide fold 1 seed 0: to run",
        "2. array of 2, at most 2 at a time, after 1: 90 minutes, 4 cpus, 1 gpus",
        "   named fold 0 seed 0: to run",
        "   named fold 1 seed 0: to run",
        "3. comparison, after all: 120 minutes, 2 cpus, 0 gpus",
    ]
    assert not described.output.exists()


def test_jobs_that_are_still_queued_are_not_submitted_again(
    runner: Runner, executors: Executors, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(runner, Limits(), [])
    monkeypatch.setattr(slurm.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="12\n12\n"))
    with pytest.raises(RuntimeError, match=r"still queued: 12\. .*scancel 12"):
        submit(runner, Limits(), [])
    monkeypatch.setattr(slurm.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=""))
    assert submit(runner, Limits(), [])


def test_absent_submitit_is_said(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ModuleNotFoundError, match=r"submits by submitit, .*: pip install submitit=="):
        submit(runner, Limits(), [])


def test_absent_slurm_is_said(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=r"There is no sbatch, srun, squeue on this machine: call .* login node"):
        submit(runner, Limits(), [])


class TestCommand:
    def test_submits_in_place_of_running(self, content: dict[str, Any], executors: Executors, tmp_path: Path) -> None:
        (tmp_path / "limits.yaml").write_text("partition: long\n")
        (tmp_path / "set.yaml").write_text(yaml.safe_dump(content))
        run_experiments(str(tmp_path / "set.yaml"), cluster="slurm", limits=str(tmp_path / "limits.yaml"))
        assert [batch[0].partition for batch in executors.batches] == ["long"] * 3

    def test_refuses_before_anything_is_submitted(
        self, content: dict[str, Any], executors: Executors, tmp_path: Path
    ) -> None:
        (tmp_path / "set.yaml").write_text(yaml.safe_dump(content))
        for options, message in (
            ({"cluster": "pbs"}, "`cluster` is 'pbs'; expected slurm"),
            ({"limits": "x.yaml"}, "add `--cluster slurm`"),
            ({"cluster": "slurm", "folds": [7]}, "fold 7 does not exist"),
        ):
            with pytest.raises(ValueError, match=message):
                run_experiments(str(tmp_path / "set.yaml"), **options)
        assert executors.batches == []
