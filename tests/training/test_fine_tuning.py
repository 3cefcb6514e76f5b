from __future__ import annotations

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from scripts.training.checkpoints import BestModel
from scripts.training.fine_tuning import StartingModel, is_saved_as


def layer(bias: float = 0.0) -> nn.Linear:
    torch.manual_seed(0)
    network = nn.Linear(2, 2)
    nn.init.constant_(network.bias, bias)
    return network


def bias_of(path: Path) -> float:
    return torch.load(path, weights_only=True)["bias"][0].item()


class Validator(Engine):
    """Each run yields the next of the scores as key metric."""

    def __init__(self, scores: list[float], cases: int = 1) -> None:
        super().__init__(lambda engine, batch: None)
        self.data_loader = [0] * cases
        self.state.key_metric_name = "dice"
        remaining = iter(scores)
        self.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.state.metrics.update(dice=next(remaining)))

    def run(self, *_: Any) -> None:  # type: ignore[override]
        super().run(self.data_loader)


def train(network: nn.Linear, path: Path, scores: list[float], epochs: int = 2, cases: int = 1) -> BestModel:
    """Adds 1 to the bias an epoch; validates after each."""
    validator = Validator(scores, cases)
    best = BestModel(network, path)
    best.attach(validator)  # type: ignore[arg-type]

    def step(engine: Engine, batch: int) -> None:
        with torch.no_grad():
            network.bias += 1

    trainer = Engine(step)
    StartingModel(validator, best).attach(trainer)  # type: ignore[arg-type]
    if cases:
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: validator.run())
    trainer.run([0], max_epochs=epochs)
    return best


class TestStartingModel:
    def test_a_worse_model_is_reported_and_the_better_one_is_kept(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "model.pt"
        BestModel(layer(5.0), path).save()
        train(layer(5.0), path, [0.9, 0.3, 0.4])
        assert bias_of(path) == 7.0, "the best of this run, though worse than before it"
        assert bias_of(tmp_path / "model_1.pt") == 5.0
        assert "WORSE than what this training started from, 0.4000 against 0.9000" in caplog.text
        assert "model_1.pt; to go back" in caplog.text

    def test_a_better_model_is_reported_too(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "model.pt"
        BestModel(layer(5.0), path).save()
        with caplog.at_level(logging.INFO):
            train(layer(5.0), path, [0.3, 0.9, 0.4])
        assert bias_of(path) == 6.0
        assert "WORSE" not in caplog.text
        assert "0.3000 before this training, 0.9000 now" in caplog.text

    def test_no_copy_is_overwritten(self, tmp_path: Path) -> None:
        path = tmp_path / "model.pt"
        BestModel(layer(5.0), path).save()
        train(layer(5.0), path, [0.9, 0.3, 0.4])
        train(layer(7.0), path, [0.9, 0.3, 0.4])
        assert [bias_of(tmp_path / f"model{n}.pt") for n in ("", "_1", "_2")] == [9.0, 5.0, 7.0]

    def test_a_start_from_an_older_copy_loses_nothing(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "model.pt"
        BestModel(layer(1.0), tmp_path / "model_1.pt").save()
        BestModel(layer(5.0), path).save()
        train(layer(1.0), path, [0.9, 0.3, 0.4])
        assert [bias_of(tmp_path / f"model{n}.pt") for n in ("", "_1", "_2")] == [3.0, 1.0, 5.0]
        assert "model_1.pt; to go back" in caplog.text

    def test_no_process_but_the_first_saves_and_all_know_the_score(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "model.pt"
        BestModel(layer(5.0), path).save()
        monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
        assert train(layer(5.0), path, [0.8, 0.95, 0.9]).best == 0.95
        assert "WORSE" not in caplog.text
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("there", ["nothing", "another model", "no checkpoint"])
    def test_another_training_is_left_alone(self, tmp_path: Path, there: str) -> None:
        path = tmp_path / "model.pt"
        if there == "another model":
            BestModel(layer(1.0), path).save()
        if there == "no checkpoint":
            path.write_text("text")
        train(layer(5.0), path, [0.3, 0.4])  # were there a validation more, the scores would run out
        assert bias_of(path) == 7.0
        assert list(tmp_path.iterdir()) == [path]

    def test_a_resumed_run_is_left_alone(self, tmp_path: Path) -> None:
        best = BestModel(layer(), tmp_path / "model.pt")
        best.save()
        StartingModel(Validator([]), best).keep(SimpleNamespace(state=SimpleNamespace(epoch=3)))  # type: ignore[arg-type]
        assert list(tmp_path.iterdir()) == [best.path]

    def test_without_cases_the_model_is_kept_unscored(self, tmp_path: Path) -> None:
        path = tmp_path / "model.pt"
        BestModel(layer(5.0), path).save()
        best = train(layer(5.0), path, [], cases=0)
        assert bias_of(tmp_path / "model_1.pt") == 5.0
        assert best.best == -math.inf


class TestIsSavedAs:
    def test_half_precision_of_the_file_does_not_matter(self, tmp_path: Path) -> None:
        network = layer(0.1)
        half = {name: value.half() for name, value in network.state_dict().items()}
        torch.save({"model": half}, tmp_path / "m.pt")
        assert not is_saved_as(network, tmp_path / "m.pt")
        network.load_state_dict(half)
        assert is_saved_as(network, tmp_path / "m.pt")

    @pytest.mark.parametrize("change", ["missing", "shape"])
    def test_another_network_is_not(self, tmp_path: Path, change: str) -> None:
        state = dict(layer().state_dict())
        if change == "missing":
            del state["bias"]
        else:
            state["bias"] = torch.zeros(3)
        torch.save(state, tmp_path / "m.pt")
        assert not is_saved_as(layer(), tmp_path / "m.pt")
