"""Jobs of a set as a node runs them, with a launcher that stands for monai.bundle."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from scripts.experiments.cluster import jobs
from scripts.experiments.cluster.jobs import CompareJob, RunJob
from scripts.experiments.description import ExperimentSet
from scripts.experiments.runner import Runner


@pytest.fixture(autouse=True)
def _with_launch(monkeypatch: pytest.MonkeyPatch, launch: Any) -> None:
    monkeypatch.setattr(jobs, "Runner", lambda described, **options: Runner(described, launch=launch, **options))


def test_a_job_completes_its_run_and_no_other(described: ExperimentSet, launch: Any, tmp_path: Path) -> None:
    job = pickle.loads(pickle.dumps(RunJob(described, "wide", 1, 0, tmp_path)))
    assert job() == "complete"
    assert launch.steps == ["training wide/fold1_seed0", "evaluating fold1_seed0/validation"]


def test_a_failure_is_the_jobs_and_stands_in_the_comparison(
    described: ExperimentSet, launch: Any, tmp_path: Path
) -> None:
    launch.fail = lambda run_id, folder: folder.parts[-2:] == ("wide", "fold1_seed0")
    with pytest.raises(RuntimeError, match=r"wide fold 1 seed 0: .*too dark"):
        RunJob(described, "wide", 1, 0, tmp_path)()
    for fold in (0, 1):
        RunJob(described, "full", fold, 0, tmp_path)()
    skipped = {"named fold 0 seed 0": "no reason."}
    CompareJob(described, ["full", "wide"], tmp_path, skipped)()
    text = (described.output / "comparison_validation.md").read_text()
    assert "INCOMPLETE: wide lacks fold 0 seed 0, fold 1 seed 0." in text
    assert "FAILED: wide fold 1 seed 0: training ended with status 1: ValueError: too dark" in text
    assert "SKIPPED: named fold 0 seed 0: no reason." in text

    launch.fail = lambda run_id, folder: False
    RunJob(described, "wide", 1, 0, tmp_path)()
    CompareJob(described, ["full", "wide"], tmp_path, {})()
    assert "FAILED" not in (described.output / "comparison_validation.md").read_text()


def test_what_is_queued_again_is_the_same_run(described: ExperimentSet, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    job = RunJob(described, "wide", 1, 0, tmp_path)
    job.runner = Runner(described)
    again = job.checkpoint()
    assert job.runner.processes.stopped  # the training was told to end
    assert again.function == RunJob(described, "wide", 1, 0, tmp_path)
