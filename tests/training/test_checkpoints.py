from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from scripts.networks.weights import read_weights
from scripts.training.checkpoints import BestModel, LastState, load_model


def network(value: float = 0.0) -> nn.Linear:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, value)
    nn.init.constant_(layer.bias, value)
    return layer


def saved_value(path: Path) -> float:
    return float(read_weights(path)["bias"][0])


class TestLoadModel:
    @pytest.mark.parametrize("wrap", [lambda state: {"model": state}, lambda state: state], ids=["key", "bare"])
    def test_reads_both_forms(self, tmp_path: Path, wrap: Any) -> None:
        torch.save(wrap(network(3.0).state_dict()), tmp_path / "m.pt")
        loaded = load_model(network(), tmp_path / "m.pt")
        assert all((parameter == 3.0).all() for parameter in loaded.parameters())

    def test_returns_the_network_itself(self, tmp_path: Path) -> None:
        torch.save(network().state_dict(), tmp_path / "m.pt")
        mine = network(1.0)
        assert load_model(mine, str(tmp_path / "m.pt")) is mine

    def test_absent_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"m\.pt does not exist\. Train first .*path of a trained model"):
            load_model(network(), tmp_path / "m.pt")

    def test_garbage(self, tmp_path: Path) -> None:
        (tmp_path / "m.pt").write_bytes(b"garbage")
        with pytest.raises(ValueError, match=r"m\.pt is not a checkpoint of tensors"):
            load_model(network(), tmp_path / "m.pt")

    def test_pickled_code_is_not_run(self, tmp_path: Path) -> None:
        torch.save({"model": network()}, tmp_path / "m.pt")  # a module, not its tensors
        with pytest.raises(ValueError, match=r"m\.pt is not a checkpoint of tensors"):
            load_model(network(), tmp_path / "m.pt")

    def test_something_else_than_a_dictionary(self, tmp_path: Path) -> None:
        torch.save([torch.ones(1)], tmp_path / "m.pt")
        with pytest.raises(ValueError, match=r"m\.pt holds a list; expected a dictionary of tensors"):
            load_model(network(), tmp_path / "m.pt")

    @pytest.mark.parametrize("spoil", ["missing", "surplus", "shape"])
    def test_all_weights_or_none(self, tmp_path: Path, spoil: str) -> None:
        state = dict(network(3.0).state_dict())
        if spoil == "missing":
            del state["bias"]
        else:
            state.update({"surplus": torch.ones(1)} if spoil == "surplus" else {"bias": torch.ones(5)})
        torch.save({"model": state}, tmp_path / "m.pt")
        with pytest.raises(ValueError, match=r"m\.pt does not fit the network of this configuration"):
            load_model(network(), tmp_path / "m.pt")


def evaluator(scores: list[float]) -> Engine:
    """One run of it yields the next of the scores as key metric."""
    engine = Engine(lambda engine, batch: None)
    engine.state.key_metric_name = "val_mean_dice"
    remaining = iter(scores)

    @engine.on(Events.EPOCH_COMPLETED)
    def score() -> None:
        engine.state.metrics["val_mean_dice"] = next(remaining)

    return engine


class TestBestModel:
    def test_keeps_the_best_only(self, tmp_path: Path) -> None:
        layer, engine = network(), evaluator([0.3, 0.6, 0.6, 0.5, 0.7])
        best = BestModel(layer, tmp_path / "model.pt")
        best.attach(engine)
        kept = []
        for value in (1.0, 2.0, 3.0, 4.0, 5.0):
            nn.init.constant_(layer.bias, value)
            engine.run([0])
            kept.append(saved_value(tmp_path / "model.pt"))
        assert kept == [1.0, 2.0, 2.0, 2.0, 5.0]
        assert best.best == 0.7

    def test_nan_is_never_the_best(self, tmp_path: Path) -> None:
        engine = evaluator([math.nan])
        BestModel(network(), tmp_path / "model.pt").attach(engine)
        engine.run([0])
        assert not (tmp_path / "model.pt").exists()

    def test_restored_best_is_not_beaten_by_less(self, tmp_path: Path) -> None:
        engine, best = evaluator([0.4, 0.9]), BestModel(network(), tmp_path / "model.pt")
        best.load_state_dict({"best": 0.5})
        best.attach(engine)
        engine.run([0])
        assert not (tmp_path / "model.pt").exists()
        engine.run([0])
        assert (tmp_path / "model.pt").exists()


def trainer(objects: dict[str, Any], path: Path, **arguments: Any) -> Engine:
    """Adds 1 to the bias an iteration."""

    def step(engine: Engine, batch: int) -> None:
        with torch.no_grad():
            objects["model"].bias += 1

    engine = Engine(step)
    LastState(objects, path, **arguments).attach(engine)
    return engine


class TestLastState:
    def test_saves_the_last_epoch(self, tmp_path: Path) -> None:
        objects = {"model": network()}
        trainer(objects, tmp_path / "last.pt").run([0, 0], max_epochs=3)
        state = torch.load(tmp_path / "last.pt", weights_only=True)
        assert state["trainer"] == {"epoch": 3, "iteration": 6, "max_epochs": 3}
        assert saved_value(tmp_path / "last.pt") == 6.0

    def test_interval_skips_epochs_but_not_the_last(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        epochs = []
        monkeypatch.setattr(
            "scripts.training.checkpoints.save_atomically",
            lambda content, path: epochs.append(content["trainer"]["epoch"]),
        )
        trainer({"model": network()}, tmp_path / "last.pt", interval=2).run([0], max_epochs=5)
        assert epochs == [2, 4, 5]

    def test_resumes_model_best_and_progress(self, tmp_path: Path) -> None:
        path = tmp_path / "last.pt"
        best = BestModel(network(), tmp_path / "model.pt")
        best.best = 0.75
        first = trainer({"model": network(), "best": best}, path)

        @first.on(Events.EPOCH_STARTED(once=3))
        def cut_power() -> None:
            raise SystemError("power cut")

        with pytest.raises(SystemError):
            first.run([0, 0], max_epochs=4)

        layer, again = network(), BestModel(network(), tmp_path / "model.pt")
        second = trainer({"model": layer, "best": again}, path, resume=True)
        second.run([0, 0], max_epochs=4)
        assert second.state.epoch == 4
        assert second.state.iteration == 8
        assert (layer.bias == 8).all()  # 4 from the file, 4 of epochs 3 and 4
        assert again.best == 0.75

    def test_largest_memory_outlives_a_resume(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = iter([{"device": "cpu", "bytes": n} for n in (7, 9, 3)])
        monkeypatch.setattr("scripts.training.checkpoints.peak_memory", lambda: next(found))
        first = trainer({"model": network()}, tmp_path / "last.pt")
        first.add_event_handler(Events.EPOCH_STARTED(once=3), lambda: first.terminate())
        first.run([0], max_epochs=3)
        trainer({"model": network()}, tmp_path / "last.pt", resume=True).run([0], max_epochs=3)
        assert torch.load(tmp_path / "last.pt", weights_only=True)["peak_memory"] == {"device": "cpu", "bytes": 9}

    def test_scaler_of_mixed_precision_is_part_of_the_state(self, tmp_path: Path) -> None:
        class Scaler:
            scale = 1.0

            def state_dict(self) -> dict[str, float]:
                return {"scale": self.scale}

            def load_state_dict(self, state: dict[str, float]) -> None:
                self.scale = state["scale"]

        first = trainer({"model": network()}, tmp_path / "last.pt")
        first.scaler = Scaler()
        first.scaler.scale = 512.0
        first.run([0], max_epochs=1)
        second = trainer({"model": network()}, tmp_path / "last.pt", resume=True)
        second.scaler = Scaler()
        second.run([0], max_epochs=1)
        assert second.scaler.scale == 512.0

    def test_without_resume_the_file_is_left_alone_at_the_start(self, tmp_path: Path) -> None:
        trainer({"model": network(9.0)}, tmp_path / "last.pt").run([0], max_epochs=1)
        layer = network()
        trainer({"model": layer}, tmp_path / "last.pt").run([0], max_epochs=1)
        assert (layer.bias == 1).all()

    def test_nothing_to_resume_is_a_warning(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            trainer({"model": network()}, tmp_path / "last.pt", resume=True).run([0], max_epochs=1)
        assert "Nothing to resume" in caplog.text
        assert (tmp_path / "last.pt").is_file()

    def test_run_on_other_cases_is_not_resumed(self, tmp_path: Path) -> None:
        path = tmp_path / "last.pt"
        trainer({"model": network()}, path, trained_on=["a", "b", "c"]).run([0], max_epochs=2)
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"a run on other cases: 1 of its 3 are none of the 4 to train on now"):
            trainer({"model": network()}, path, resume=True, trained_on=list("abde")).run([0], max_epochs=2)
        assert path.read_bytes() == before
        trainer({"model": network()}, path, resume=True, trained_on=list("cab")).run([0], max_epochs=2)

    @pytest.mark.parametrize(
        ("other", "epochs", "message"),
        [
            (
                {"model": nn.Linear(2, 2)},
                3,
                r"belongs to a run of 2 epochs; this one has 3.*`max_epochs` to 2",
            ),
            (
                {"model": nn.Linear(3, 2)},
                2,
                r"cannot be resumed by this configuration \('model'\).*size mismatch",
            ),
            ({"model": nn.Linear(2, 2), "loss": nn.Linear(1, 1)}, 2, r"it lacks \['loss'\]"),
        ],
    )
    def test_state_of_another_run(self, tmp_path: Path, other: dict[str, nn.Module], epochs: int, message: str) -> None:
        trainer({"model": network()}, tmp_path / "last.pt").run([0], max_epochs=2)
        with pytest.raises(ValueError, match=message):
            trainer(dict(other), tmp_path / "last.pt", resume=True).run([0], max_epochs=epochs)
