"""Each run of the bundle says what to lower where memory ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from scripts.inference.failures import SomeCasesFailed
from scripts.networks.bipvl_seg import BiPVLSeg

Fail = Callable[..., BaseException]


@pytest.fixture(autouse=True)
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: BiPVLSeg, image: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(BiPVLSeg, "forward", forward)


def test_training(failing_run: Fail, trained: Any) -> None:
    options = {**trained.options, "batch_size": 2}
    message = str(failing_run(MemoryError, "^Training on a batch", "training", "train.yaml", **options))
    assert "images (2, 1, 64, 32, 32) ran out of memory: CUDA out of memory" in message
    for setting in ("backbone#network#use_checkpoint: true ", "amp: true "):
        assert setting in message
    assert "batch_size: lower it; memory grows in proportion, now 2" in message
    assert "now [64, 32, 32]" in message


@pytest.mark.parametrize("run_id", ["evaluating", "inference"])
def test_inference(failing_run: Fail, trained: Any, tiny: dict[str, Any], run_id: str) -> None:
    files = {"evaluating": ["train.yaml", "evaluate.yaml"], "inference": ["inference.yaml"]}[run_id]
    data = {"dataset_dir": str(trained.data / "imagesTs")}
    options = {"evaluating": trained.options, "inference": {**tiny, **data}}[run_id]
    options = {**options, "ckpt_path": str(trained.best), "sw_batch_size": 4}
    kind = {"evaluating": SomeCasesFailed, "inference": MemoryError}[run_id]  # of three cases, and of one
    message = str(failing_run(kind, "Inference on a batch", run_id, *files, **options))
    assert "sw_batch_size: lower it; the result is the same, now 4" in message
    assert "in training too, now [64, 32, 32]" in message


def test_validation_within_training(failing_run: Fail, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    full = BiPVLSeg.forward
    monkeypatch.undo()
    fits = BiPVLSeg.forward

    def forward(self: BiPVLSeg, image: torch.Tensor) -> Any:
        return fits(self, image) if self.training else full(self, image)

    monkeypatch.setattr(BiPVLSeg, "forward", forward)
    options = {**trained.options, "max_epochs": 1, "val_interval": 1, "sw_batch_size": 2}
    message = str(failing_run(MemoryError, "^Inference on a batch", "training", "train.yaml", **options))
    assert "sw_batch_size: lower it; the result is the same, now 2" in message
