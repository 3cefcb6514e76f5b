from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from scripts.data.phantom.dataset import make_phantom
from scripts.experiments.commands import run_experiments
from scripts.experiments.nnunet.command import run_nnunet

ENVIRONMENT = os.environ.get("BIPVL_NNUNET_VENV", str(Path(__file__).resolve().parents[3] / ".venv-nnunet"))


@pytest.mark.nnunet
def test_plans_trains_predicts_and_is_scored(tmp_path):
    """Then called again with nothing left to train."""
    make_phantom(str(tmp_path / "data"), num_training=4, num_test=1, progress=False)
    settings = {"dataset_dir": str(tmp_path / "data"), "prepare_data": None, "num_folds": 2, "device": "cpu"}
    settings |= {"epochs": 1, "iterations": 2, "mirror": False, "environment": ENVIRONMENT}
    for _ in range(2):
        run_nnunet("train.yaml", str(tmp_path / "set"), **settings)
    folder = tmp_path / "set/nnunet/fold0_seed0"
    with (folder / "validation/metrics_per_case.csv").open(newline="") as file:
        assert len({row["case"] for row in csv.DictReader(file)}) == 2


@pytest.mark.nnunet
def test_row_of_a_set_trains_is_compared_and_is_not_trained_again(tmp_path, capsys):
    """Beside a row of this bundle, on a miniature data set; each has a cost, and is complete at the second call."""
    make_phantom(str(tmp_path / "data"), num_training=4, num_test=1, progress=False)
    settings = {"epochs": 1, "iterations": 2, "mirror": False, "environment": ENVIRONMENT, "install": True}
    rows = {
        "backbone": ["baseline_backbone.yaml"],
        "nnunet": {"title": "nnU-Net", "nnunet": {**settings, "device": "cpu"}},
    }
    options = {"dataset_dir": str(tmp_path / "data"), "prepare_data": None, "num_folds": 2, "max_epochs": 1}
    for _ in range(2):
        run_experiments(experiments=rows, output=str(tmp_path / "set"), val_interval=1, **options)
    said = capsys.readouterr().out
    assert "nnunet fold 0 seed 0: complete, skipped" in said
    table = (tmp_path / "set/comparison_validation.md").read_text().splitlines()
    row = next(line for line in table if line.startswith("| nnU-Net |")).strip("| ").split(" | ")
    assert len(row) == 9
    assert all(float(cell) > 0 for cell in row[5:])  # parameters, operations, seconds, memory
    assert "INCOMPLETE" not in said
