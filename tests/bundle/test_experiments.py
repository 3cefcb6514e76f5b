"""A set of experiments with monai.bundle itself: killed, called again, compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.experiments.commands import run_experiments

CALL = "import sys; from scripts.experiments.commands import run_experiments; run_experiments(sys.argv[1])"
EPOCHS = 3


@pytest.fixture
def file(tiny: dict[str, Any], tmp_path: Path) -> Path:
    content = {
        "output": str(tmp_path / "set"),
        "experiments": {"full": [], "backbone": ["baseline_backbone.yaml"]},
        "folds": [0, 1],
        "reference": "full",
        "jobs": 2,
        "threads": 1,
        "options": {
            **tiny,
            "dataset_dir": str(tmp_path / "data"),
            "prepare_data#num_training": 6,
            "prepare_data#num_test": 1,
            "prepare_data#progress": False,
            "num_folds": 2,
            "max_epochs": EPOCHS,
            "val_interval": EPOCHS,
        },
    }
    path = tmp_path / "set.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.slow
def test_two_experiments_on_two_folds_through_a_kill(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _kill_amid_training(file, tmp_path / "set/full/fold0_seed0")
    assert not list(tmp_path.glob("set/*/*/run.json"))
    run_experiments(str(file))
    said = capsys.readouterr().out
    assert "full fold 0 seed 0: training, resumed" in said
    log = (tmp_path / "set/full/fold0_seed0/training.log").read_text()
    assert "Resumed " in log
    assert json.loads((tmp_path / "set/full/fold0_seed0/run.json").read_text())["resumed"] is True
    table = (tmp_path / "set/comparison_validation.md").read_text()
    assert "Mean over 6 cases (validation)" in table
    assert "INCOMPLETE" not in table
    run_experiments(str(file))
    assert capsys.readouterr().out.count("complete, skipped") == 4


def _kill_amid_training(file: Path, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", CALL, str(file)], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not (folder / "last.pt").is_file():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
