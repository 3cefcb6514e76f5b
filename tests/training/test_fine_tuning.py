from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.utils.data import DataLoader, Dataset

from scripts.data.fingerprints import fingerprints
from scripts.networks.weights import read_checkpoint, record_of
from scripts.training.checkpoints import BestModel
from scripts.training.fine_tuning import OUTCOME, StartingModel, is_saved_as


def layer(bias: float = 0.0) -> nn.Linear:
    torch.manual_seed(0)
    network = nn.Linear(2, 2)
    nn.init.constant_(network.bias, bias)
    return network


def bias_of(path: Path) -> float:
    return torch.load(path, weights_only=True)["bias"][0].item()


class Cases(Dataset[int]):
    """As MONAI's data sets: the items are in `data`."""

    def __init__(self, folder: Path, names: str) -> None:
        self.data = [{"image": str(folder / name), "case": name} for name in names]
        for item in self.data:
            Path(item["image"]).write_text(item["case"])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> int:
        return index


class Validator(Engine):
    """The key metric is the better, the nearer the bias is to `ideal`; remembers on which cases it was asked."""

    def __init__(self, network: nn.Linear, cases: Cases, ideal: float) -> None:
        super().__init__(lambda engine, batch: self.asked[-1].append(int(batch)))
        self.data_loader: Any = DataLoader(cases, batch_size=1)
        self.asked: list[list[int]] = []
        self.state.key_metric_name = "dice"
        score = lambda: 1.0 - abs(network.bias[0].item() - ideal) / 10  # noqa: E731
        self.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.state.metrics.update(dice=score()))

    def run(self, *_: Any) -> None:  # type: ignore[override]
        self.asked.append([])
        super().run(self.data_loader, epoch_length=len(self.data_loader))


class Trained(NamedTuple):
    best: BestModel
    validator: Validator


def train(network: nn.Linear, path: Path, ideal: float, *, validation: str = "xy", training: str = "ab") -> Trained:
    """Adds 1 to the bias in each of two epochs; validates after each."""
    folder = path.parent / "images"
    folder.mkdir(exist_ok=True)
    validator = Validator(network, Cases(folder, validation), ideal)
    best = BestModel(network, path, fingerprints(Cases(folder, training).data))
    best.attach(validator)  # type: ignore[arg-type]

    def step(engine: Engine, batch: int) -> None:
        with torch.no_grad():
            network.bias += 1

    trainer = Engine(step)
    StartingModel(validator, best).attach(trainer)  # type: ignore[arg-type]
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: validator.run() if validation else best.save())
    trainer.run([0], max_epochs=2)
    return Trained(best, validator)


def biases(folder: Path) -> dict[str, float]:
    return {path.stem: bias_of(path) for path in sorted(folder.glob("*.pt"))}


def outcome(folder: Path) -> dict[str, Any]:
    return json.loads((folder / OUTCOME).read_text())


class TestStartingModel:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        BestModel(layer(5.0), tmp_path / "model.pt").save()
        return tmp_path / "model.pt"

    def test_a_worse_model_does_not_come_into_use_and_is_told(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = path.read_bytes()
        train(layer(5.0), path, ideal=4.0)
        assert path.read_bytes() == before
        assert biases(path.parent) == {"model": 5.0, "model_1": 6.0}
        told = "WORSE, 0.8000 against 0.9000 on 2 cases that neither was trained on: model.pt is what it was and stays"
        assert told in caplog.text
        assert outcome(path.parent)["text"].startswith(told)
        assert outcome(path.parent)["worse"]

    def test_a_better_model_changes_places_with_the_old_one(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            train(layer(5.0), path, ideal=8.0)
        assert biases(path.parent) == {"model": 7.0, "model_1": 5.0}
        assert "No worse, 0.9000 against 0.7000 on 2 cases" in caplog.text
        assert "model.pt is the new model, the one before is model_1.pt" in caplog.text
        assert not outcome(path.parent)["worse"]

    def test_the_model_in_use_stays_while_the_training_goes_on(self, path: Path) -> None:
        used, save = [], BestModel.save

        def spy(best: BestModel) -> None:
            save(best)
            used.append(bias_of(path))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BestModel, "save", spy)
            train(layer(5.0), path, ideal=8.0)
        assert used == [5.0, 5.0]

    def test_no_copy_is_overwritten(self, path: Path) -> None:
        train(layer(5.0), path, ideal=8.0)
        train(layer(7.0), path, ideal=20.0)
        assert biases(path.parent) == {"model": 9.0, "model_1": 5.0, "model_2": 7.0}

    @pytest.mark.parametrize(("ideal", "models"), [(9.0, [5.0, 1.0, 2.0]), (2.0, [2.0, 1.0, 5.0])])
    def test_a_start_from_an_older_copy_is_held_against_the_model_in_use(
        self, path: Path, ideal: float, models: list[float]
    ) -> None:
        BestModel(layer(1.0), path.with_name("model_1.pt")).save()
        trained = train(layer(1.0), path, ideal)
        found = biases(path.parent)
        assert [found["model"], found["model_1"]] == models[:2]
        assert found["model_2"] == (3.0 if ideal == 9.0 else models[2])
        assert trained.validator.asked[-2:] == [[0, 1], [0, 1]]

    def test_both_are_judged_on_what_neither_was_trained_on(self, path: Path) -> None:
        folder = path.parent / "images"
        folder.mkdir()
        BestModel(layer(5.0), path, fingerprints(Cases(folder, "xp").data)).save()
        trained = train(layer(5.0), path, ideal=8.0, validation="xyz", training="pq")
        assert trained.validator.asked == [[0, 1, 2], [0, 1, 2], [1, 2], [1, 2]]
        assert outcome(path.parent)["cases"] == 2
        seen = record_of(read_checkpoint(path))["trained_on"]
        assert seen == fingerprints(Cases(folder, "xpq").data), "those of the model that it came from too"

    @pytest.mark.parametrize("validation", ["x", ""])
    def test_without_a_case_that_both_do_not_know_the_new_one_is_used_and_that_is_told(
        self, path: Path, caplog: pytest.LogCaptureFixture, validation: str
    ) -> None:
        (path.parent / "images").mkdir()
        BestModel(layer(5.0), path, fingerprints(Cases(path.parent / "images", "x").data)).save()
        train(layer(5.0), path, ideal=4.0, validation=validation)
        assert biases(path.parent) == {"model": 6.0 if validation else 7.0, "model_1": 5.0}
        assert "NOT JUDGED, without a case that neither model was trained on" in caplog.text

    def test_a_model_of_another_network_in_use_is_kept_and_not_compared(self, path: Path) -> None:
        BestModel(nn.Linear(3, 3), path).save()
        before = path.read_bytes()
        BestModel(layer(1.0), path.with_name("model_1.pt")).save()
        train(layer(1.0), path, ideal=9.0)
        assert bias_of(path) == 3.0
        assert path.with_name("model_2.pt").read_bytes() == before

    def test_no_process_but_the_first_writes(
        self, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
        train(layer(5.0), path, ideal=8.0)
        assert "worse" not in caplog.text.lower()
        assert {file.name for file in path.parent.iterdir()} == {"images", "model.pt"}

    @pytest.mark.parametrize("there", ["nothing", "another model", "no checkpoint"])
    def test_another_training_is_left_alone(self, tmp_path: Path, there: str) -> None:
        path = tmp_path / "model.pt"
        if there == "another model":
            BestModel(layer(1.0), path).save()
        if there == "no checkpoint":
            path.write_text("text")
        trained = train(layer(5.0), path, ideal=8.0)
        assert bias_of(path) == 7.0
        assert len(trained.validator.asked) == 2
        assert {file.name for file in tmp_path.iterdir()} == {"images", "model.pt"}

    def test_a_fine_tuning_that_is_resumed_goes_on_with_its_file(self, path: Path) -> None:
        network = layer(5.0)
        first = BestModel(network, path)
        StartingModel(Validator(network, Cases(path.parent, ""), 8.0), first).keep(at_epoch(0))  # type: ignore[arg-type]
        assert first.path.name == "model_1.pt"
        again = BestModel(network, path)
        starting = StartingModel(Validator(network, Cases(path.parent, ""), 8.0), again)  # type: ignore[arg-type]
        again.load_state_dict(first.state_dict())
        starting.keep(at_epoch(1))
        again.save()
        starting.compare(at_epoch(1))
        assert biases(path.parent) == {"model": 5.0, "model_1": 5.0}
        assert not (path.parent / OUTCOME).exists(), "nothing was trained any more"
        starting.compare(at_epoch(2))
        assert "NOT JUDGED" in outcome(path.parent)["text"]


def at_epoch(epoch: int) -> Any:
    return SimpleNamespace(state=SimpleNamespace(epoch=epoch))


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
