"""A set of experiments, and a training of two tasks, on a real Slurm of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests import slurm_here

from scripts.experiments.commands import run_experiments

pytestmark = pytest.mark.slurm
EPOCHS = 4


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    reason = slurm_here.why_not()
    if reason:
        pytest.skip(reason)
    pytest.importorskip("submitit")
    with slurm_here.running(tmp_path_factory.mktemp("slurm")) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def content(tiny: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    options = {**tiny, "dataset_dir": str(tmp_path / "data"), "prepare_data#num_training": 4}
    options |= {"prepare_data#num_test": 1, "prepare_data#progress": False, "num_folds": 2}
    options |= {"max_epochs": EPOCHS, "val_interval": EPOCHS}
    rows = {
        "full": [],
        "backbone": ["baseline_backbone.yaml"],
        "named": {"evaluates": "full", "options": {"sw_overlap": 0}},
    }
    return {"experiments": rows, "folds": [0], "reference": "full", "options": options}


def wait(until: Callable[[], bool], what: str, seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.3)


def queued() -> str:
    command = ["squeue", "--noheader", "--array", "--format", "%i %T"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def epoch(folder: Path) -> int:
    try:
        return torch.load(folder / "last.pt", weights_only=True)["trainer"]["epoch"]
    except (OSError, RuntimeError):
        return 0


def test_jobs_that_are_told_to_end_or_killed_resume_exactly(
    slurm: None, content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is told that its time is over, by SIGUSR2; the other's node is taken away, as when it is preempted."""
    file = str(tmp_path / "set.yaml")
    Path(file).write_text(yaml.safe_dump({**content, "output": "x"}, sort_keys=False))
    limits = tmp_path / "limits.yaml"
    limits.write_text("{partition: test, minutes: 60, cpus: 1, gpus: 0, notice: 30}\n")
    output = tmp_path / "set"
    run_experiments(file, output=str(output), cluster="slurm", limits=str(limits))
    lines = capsys.readouterr().out.splitlines()
    ids = {line.split(": ")[1]: line.split()[1].rstrip(":") for line in lines if line.startswith("  job ")}
    assert list(ids) == [
        "full fold 0 seed 0",
        "backbone fold 0 seed 0",
        "named fold 0 seed 0",
        "comparison, after them. Logs",
    ]
    with pytest.raises(RuntimeError, match="Jobs of this set are still queued: "):
        run_experiments(file, output=str(output), cluster="slurm", limits=str(limits))

    full, backbone = output / "full/fold0_seed0", output / "backbone/fold0_seed0"
    wait(lambda: 1 <= epoch(full) < EPOCHS, "the first epoch")
    subprocess.run(["scancel", "--signal", "USR2", ids["full fold 0 seed 0"]], check=True)
    wait(lambda: 1 <= epoch(backbone) < EPOCHS, "the first epoch of the other")
    subprocess.run(["scontrol", "requeue", ids["backbone fold 0 seed 0"]], check=True)
    wait(lambda: not queued(), "the end of all jobs")

    table = (output / "comparison_validation.md").read_text()
    assert "INCOMPLETE" not in table
    assert "FAILED" not in table
    for name in ("full", "backbone"):
        log = (output / name / "fold0_seed0/training.log").read_text()
        assert "Resumed " in log, name
    assert "Interrupted by SIG" in (full / "training.log").read_text()

    run_experiments(file, output=str(tmp_path / "here"))
    for name in ("full", "backbone"):
        found, expected = (
            torch.load(folder / name / "fold0_seed0/last.pt", weights_only=True)["model"]
            for folder in (output, tmp_path / "here")
        )
        assert all(torch.equal(found[key], value) for key, value in expected.items() if isinstance(value, torch.Tensor))
        scores = [
            folder / name / "fold0_seed0/validation/metrics_per_case.csv" for folder in (output, tmp_path / "here")
        ]
        assert scores[0].read_text() == scores[1].read_text()
    capsys.readouterr()
    run_experiments(file, output=str(output), cluster="slurm", limits=str(limits))
    assert "Nothing to submit: every run is complete." in capsys.readouterr().out


def test_two_tasks_train_together(slurm: None, content: dict[str, Any], bundle_root: Path, tmp_path: Path) -> None:
    """As docs/multi_gpu.md has it for several nodes, here two tasks of one."""
    places = {"bundle_root": str(bundle_root), "output_dir": str(tmp_path / "run")}
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({**content["options"], **places, "max_epochs": 1, "val_interval": 1}))
    files = [str(bundle_root / "configs" / name) for name in ("train.yaml", "multi_gpu_train.yaml")]
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/bash\n"
        f"srun {sys.executable} -m torch.distributed.run --nnodes=$SLURM_NTASKS --nproc_per_node=1 "
        "--rdzv_backend=c10d --rdzv_id=$SLURM_JOB_ID --rdzv_endpoint=localhost:29517 --local-addr=127.0.0.1 "
        f'-m monai.bundle run training --config_file "{[*files, str(overlay)]}"\n'
    )
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    command = ["sbatch", "--wait", "--ntasks=2", f"--output={tmp_path}/job.log", f"--chdir={tmp_path}", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    log = (tmp_path / "job.log").read_text()
    assert done.returncode == 0, log[-3000:]
    state = torch.load(tmp_path / "run/models/last.pt", weights_only=True)
    assert state["settings"]["batch_size"] == "2"
    assert log.count("Best val_mean_dice so far") == 1  # the first process alone tells
