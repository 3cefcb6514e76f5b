"""The cost of a run, from the files that a run leaves: those of `scripts.experiments` and of a training."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from scripts.experiments.cost import Cost, cost_of_run
from scripts.experiments.description import parse_set
from scripts.experiments.plan import plan_runs

CONV = 2 * (3**3 * 1 * 4) * 32**3  # two for each multiplication
NETWORK = {
    "_target_": "torch.nn.Conv3d",
    "in_channels": "@in_channels",
    "out_channels": 4,
    "kernel_size": 3,
    "padding": 1,
}


@pytest.fixture
def folder(content: dict[str, Any], configs: Path) -> Path:
    """The folder of an evaluation as a set leaves it, the training around it."""
    content["options"] |= {"network_def": NETWORK, "in_channels": 1, "roi_size": [32, 32, 32]}
    train = configs / "train.yaml"
    train.write_text(train.read_text() + "network_def: null\nin_channels: 1\nroi_size: null\n")
    training, evaluating = plan_runs(parse_set(content, "the test"))[0].steps
    training.start(training.identity())
    evaluating.start(evaluating.identity())
    return evaluating.folder


def train(folder: Path, times: list[float], peak: dict[str, Any] | None) -> None:
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for step, time in enumerate(times):
            writer.add_scalar("train_loss_iteration", 1.0, step, walltime=time)
    torch.save({"model": {"weight": torch.zeros(3)}, "peak_memory": peak}, folder / "last.pt")


def test_is_measured_from_the_configuration_and_the_files_of_the_training(folder: Path) -> None:
    train(folder.parent, [10.0, 12.0, 14.0, 60.0, 62.0], {"device": "a GPU", "bytes": 2**30})  # 46 s to validate in
    assert cost_of_run(folder) == Cost(4 * 27 + 4, CONV, 2.0, 2**30, "a GPU")


def test_is_kept_and_not_measured_again(folder: Path) -> None:
    found = cost_of_run(folder)
    assert found == Cost(4 * 27 + 4, CONV)  # nothing is known of the training
    (folder / "configuration.json").unlink()
    assert cost_of_run(folder) == found


def test_state_of_an_older_training_tells_no_memory(folder: Path) -> None:
    torch.save({"model": {}}, folder.parent / "last.pt")
    assert cost_of_run(folder).peak_bytes is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "arguments.json").unlink(), "no arguments.json: its network is not one of this"),
        (lambda folder: _edit(folder, lambda identity: identity.update(words="0")), "table has been edited since"),
        (lambda folder: _edit(folder, lambda i: i["configuration"]["network_def"].pop("kernel_size")), "kernel_size"),
        (lambda folder: _edit(folder, lambda identity: identity.update(nnunet={})), "is not one of this bundle's"),
    ],
    ids=["foreign", "words", "network", "nnU-Net"],
)
def test_what_cannot_be_known_is_empty_and_said(
    folder: Path, spoil: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    train(folder.parent, [1.0, 2.0], None)
    spoil(folder)
    with caplog.at_level(logging.WARNING):
        assert cost_of_run(folder) == Cost(iteration_seconds=1.0)
    assert reason in caplog.text
    assert not (folder.parent / "cost.json").exists()


def _edit(folder: Path, change: Any) -> None:
    path = folder / "configuration.json"
    content = json.loads(path.read_text())
    change(content["identity"])
    path.write_text(json.dumps(content))
