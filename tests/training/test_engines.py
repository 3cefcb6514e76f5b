from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import nn

from scripts.training.engines import LossTerms, ValidateAtEnd, parameter_groups, prepare_batch

RATES = {"learning_rate": 1e-3, "text_learning_rate": 1e-4}


class TestPrepareBatch:
    def test_image_and_label_lose_their_metadata_alone(self) -> None:
        image, label = torch.rand(1, 1, 4, 4, 4), torch.ones(1, 1, 4, 4, 4)
        found = prepare_batch({"image": MetaTensor(image), "label": MetaTensor(label), "case": ["a"]}, "cpu")
        assert [type(item) for item in found] == [torch.Tensor, torch.Tensor]
        assert torch.equal(found[0], image)
        assert torch.equal(found[1], label)

    def test_case_without_label(self) -> None:
        image, label = prepare_batch({"image": MetaTensor(torch.rand(1, 1, 4, 4, 4))}, "cpu")
        assert type(image) is torch.Tensor
        assert label is None


class TestParameterGroups:
    def test_every_parameter_once_and_decay_for_the_network_alone(self) -> None:
        network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        loss = nn.Module()
        loss.log_variance = nn.Parameter(torch.zeros(3))
        optimizer = torch.optim.AdamW(parameter_groups(network, loss, **RATES, weight_decay=1e-5), lr=1.0)
        decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert decay == {id(p): 1e-5 for p in network.parameters()} | {id(loss.log_variance): 0.0}

    @pytest.mark.parametrize(("rate", "of_text"), [(1e-2, 1e-4), (1e-5, 1e-5)])
    def test_text_encoder_learns_no_faster_than_its_own_rate_and_the_rest(self, rate: float, of_text: float) -> None:
        network = nn.Module()
        network.text_encoder, network.rest = nn.Linear(2, 2), nn.Linear(3, 3)
        for given in (network, nn.DataParallel(network)):
            rates = {"learning_rate": rate, "text_learning_rate": 1e-4}
            groups = torch.optim.SGD(
                parameter_groups(given, nn.MSELoss(), **rates, weight_decay=0.0), lr=rate
            ).param_groups
            assert {id(p): group["lr"] for group in groups for p in group["params"]} == {
                **{id(p): of_text for p in network.text_encoder.parameters()},
                **{id(p): rate for p in network.rest.parameters()},
            }

    def test_loss_without_parameters(self) -> None:
        groups = parameter_groups(nn.Linear(1, 1), nn.MSELoss(), **RATES, weight_decay=0.1)
        assert [len(group["params"]) for group in groups] == [2, 0]
        torch.optim.AdamW(groups)


class TestValidateAtEnd:
    @pytest.mark.parametrize(
        ("epochs", "interval", "validated"),
        [(5, 2, [5]), (4, 2, []), (1, 5, [1]), (3, 1, [])],
    )
    def test_adds_the_last_epoch_where_the_interval_leaves_it_out(
        self, epochs: int, interval: int, validated: list[int]
    ) -> None:
        seen: list[int] = []
        engine = Engine(lambda engine, batch: None)
        ValidateAtEnd(SimpleNamespace(run=seen.append, data_loader=[0]), interval).attach(engine)
        engine.run([0], max_epochs=epochs)
        assert seen == validated

    def test_without_a_case_keeps_the_last_model_and_says_so_before(self, caplog: pytest.LogCaptureFixture) -> None:
        seen: list[Any] = []
        engine = Engine(lambda engine, batch: seen.append("no case to validate on" in caplog.text))
        best = SimpleNamespace(save=lambda: seen.append("saved"))
        ValidateAtEnd(SimpleNamespace(data_loader=[]), 5, best).attach(engine)
        engine.run([0], max_epochs=2)
        assert seen == [True, True, "saved"]


class TestLossTerms:
    def run(self, epochs: list[list[dict[str, float]]]) -> list[dict[str, float]]:
        """The metrics after each epoch, for the terms of each iteration."""
        loss = SimpleNamespace(terms={})
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
        reports = []

        def step(engine: Engine, batch: int) -> None:
            terms = epochs[engine.state.epoch - 1][batch]
            loss.terms = {name: torch.tensor(value) for name, value in terms.items()}

        engine = Engine(step)
        LossTerms(loss, optimizer).attach(engine)

        @engine.on(Events.EPOCH_COMPLETED)
        def look() -> None:
            reports.append(dict(engine.state.metrics))

        engine.run([0, 1], max_epochs=len(epochs))
        return reports

    def test_averages_each_term_over_its_epoch(self) -> None:
        first = [{"loss": 1.0, "alignment": 4.0}, {"loss": 3.0, "alignment": 5.0}]
        second = [{"loss": 10.0, "alignment": 0.0}, {"loss": 20.0, "alignment": 1.0}]
        reports = self.run([first, second])
        assert reports[0] == {"train_loss": 2.0, "train_alignment": 4.5, "learning_rate": 0.5}
        assert reports[1] == {"train_loss": 15.0, "train_alignment": 0.5, "learning_rate": 0.5}

    def test_term_that_is_there_now_and_then_is_averaged_over_its_own_iterations(self) -> None:
        report = self.run([[{"loss": 1.0, "rare": 7.0}, {"loss": 3.0}]])[0]
        assert report["train_rare"] == 7.0

    def test_sum_does_not_change_the_terms_of_the_loss(self) -> None:
        loss = SimpleNamespace(terms={"loss": torch.tensor(2.0)})
        terms = LossTerms(loss, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5))
        engine = Engine(lambda engine, batch: None)
        for _ in range(3):
            terms.add(engine)
        assert float(loss.terms["loss"]) == 2.0
        terms.report(engine)
        assert engine.state.metrics["train_loss"] == pytest.approx(2.0)

    def test_term_that_is_not_finite_stops_the_run_and_is_named(self) -> None:
        with pytest.raises(ValueError, match="In epoch 2 alignment became NaN or infinite"):
            self.run([[{"alignment": 1.0, "loss": 1.0}] * 2, [{"alignment": float("nan"), "loss": 1.0}] * 2])
