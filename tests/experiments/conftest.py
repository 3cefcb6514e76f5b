"""A data set of names and an own launcher, so that a set of experiments runs in no time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from scripts.experiments.description import ExperimentSet, parse_set

TRAIN = """
bundle_root: .
dataset_dir: null
prepare_data: null
num_folds: 2
fold: 0
seed: 0
concepts_file: null
text_format: fixed
max_epochs: 1
learning_rate: 1.0e-3
num_workers: 0
cache_rate: 1.0
device: cpu
ckpt_dir: null
output_dir: null
metrics_dir: null
backbone: {network: {feature_size: 12}}
concept_table:
  _target_: scripts.words.loading.load_concepts
  path: "@concepts_file"
  text_format: "@text_format"
train:
  dataset:
    data:
      _target_: scripts.data.datalist.training_items
      dataset_dir: "@dataset_dir"
      fold: "@fold"
      num_folds: "@num_folds"
      seed: "@seed"
evaluate_on: null
ckpt_path: null
nsd_tolerance: 2.0
validate:
  dataset:
    data:
      _target_: scripts.data.datalist.validation_items
      dataset_dir: "@dataset_dir"
      fold: "@fold"
      num_folds: "@num_folds"
      seed: "@seed"
"""
EVALUATE = """
evaluate_on: validation
validate#dataset:
  data:
    _target_: scripts.data.datalist.evaluation_items
    dataset_dir: "@dataset_dir"
    split: "@evaluate_on"
    fold: "@fold"
    num_folds: "@num_folds"
    seed: "@seed"
"""
WORDS = {
    "modality": "CT",
    "concepts": ["shape"],
    "classes": [{"name": "liver", "shape": "A wedge."}, {"name": "spleen", "shape": "An oval."}],
}
COLUMNS = ("case", "class", "dice", "hd95_mm", "nsd", "missed", "spurious", "voxels_reference")


class FakeLaunch:
    """Stands for monai.bundle: makes what a step makes, from its arguments alone, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Path, dict[str, Any]]] = []
        self.commands: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []
        self.fail: Callable[[str, Path], bool] = lambda run_id, folder: False

    def __call__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> int:
        run_id = command[command.index("run") + 1]
        arguments = json.loads(Path(command[command.index("--args_file") + 1]).read_text())
        self.calls.append((run_id, log.parent, arguments))
        self.commands.append(command)
        self.environments.append(environment)
        if self.fail(run_id, log.parent):
            log.write_text('Traceback (most recent call last):\n  File "x.py", line 1\nValueError: too dark\n')
            return 1
        if run_id == "training":
            torch.save(
                {"model": {"weight": torch.zeros(2, 3), "n": torch.zeros(1, dtype=torch.int)}}, log.parent / "model.pt"
            )
        else:
            write_scores(Path(arguments["metrics_dir"]), arguments["fold"], 0.5 + len(arguments["config_file"]) / 100)
        return 0

    @property
    def steps(self) -> list[str]:
        """`training full/fold0_seed0`, for each call."""
        return [f"{run_id} {'/'.join(folder.parts[-2:])}" for run_id, folder, _ in self.calls]


def write_scores(folder: Path, fold: int, dice: float) -> None:
    with (folder / "metrics_per_case.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for n in range(3):
            values = {"dice": dice + n / 100, "hd95_mm": 2.0, "nsd": dice, "missed": False, "spurious": False}
            writer.writerow({"case": f"case{3 * fold + n}", "class": "liver", "voxels_reference": 9, **values})


@pytest.fixture
def launch() -> FakeLaunch:
    return FakeLaunch()


@pytest.fixture(scope="session")
def names_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and two test cases whose files are empty: enough for a datalist."""
    root = tmp_path_factory.mktemp("names_only")
    content = {"training": [_entry(root, n) for n in range(6)], "test": [_entry(root, n) for n in (6, 7)]}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def _entry(root: Path, number: int) -> dict[str, str]:
    entry = {"image": f"case{number}.nii.gz", "label": f"label{number}.nii.gz"}
    for name in entry.values():
        (root / name).touch()
    return entry


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A small `train.yaml`, `evaluate.yaml`, overlay and table of words: quick to read."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "train.yaml").write_text(TRAIN)
    (folder / "evaluate.yaml").write_text(EVALUATE)
    (folder / "wide.yaml").write_text("backbone#network#feature_size: 48\n")
    (folder / "words.yaml").write_text(yaml.safe_dump(WORDS))
    return folder


@pytest.fixture
def content(names_only: Path, configs: Path, tmp_path: Path) -> dict[str, Any]:
    """The description of a set: two experiments that train, one that evaluates, two folds."""
    return {
        "base": [str(configs / "train.yaml")],
        "evaluate": [str(configs / "evaluate.yaml")],
        "output": str(tmp_path / "set"),
        "experiments": {
            "full": {"title": "Full"},
            "wide": [str(configs / "wide.yaml")],
            "named": {"evaluates": "full", "options": {"text_format": "name"}},
        },
        "folds": [0, 1],
        "reference": "full",
        "options": {
            "dataset_dir": str(names_only),
            "concepts_file": str(configs / "words.yaml"),
            "num_folds": 2,
            "max_epochs": 2,
        },
    }


@pytest.fixture
def described(content: dict[str, Any]) -> ExperimentSet:
    return parse_set(content, "the test")
