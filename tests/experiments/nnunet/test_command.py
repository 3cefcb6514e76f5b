from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from scripts.data.phantom.dataset import make_phantom
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
