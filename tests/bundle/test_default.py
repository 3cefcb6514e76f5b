"""The promise of the README: the command without options learns the phantom."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
def test_embedded_default_learns_the_phantom_and_is_scored(bundle_root: Path, tmp_path: Path) -> None:
    places = ["--dataset_dir", tmp_path / "data", "--ckpt_dir", tmp_path / "models", "--output_dir", tmp_path / "runs"]

    def run(run_id: str, config_file: str, *options: str) -> None:
        command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", config_file, *options]
        subprocess.run([*command, *map(str, places)], cwd=bundle_root, check=True)

    run("training", "configs/train.yaml")
    state = torch.load(tmp_path / "models" / "last.pt", weights_only=True)
    print(f"mean validation DSC: {state['best']['best']:.6f}")  # to compare runs to the digit
    assert state["best"]["best"] >= 0.90

    run("evaluating", "['configs/train.yaml','configs/evaluate.yaml']", "--evaluate_on", "test")
    rows = list(csv.DictReader((tmp_path / "runs" / "metrics" / "metrics_summary.csv").open()))
    assert float(rows[-1]["dice_mean"]) >= 0.87
