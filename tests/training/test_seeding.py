"""Random streams are the same for the same place in a training, and unrelated for any other."""

from __future__ import annotations

import random
from typing import Any

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, RandShiftIntensityd

from scripts.training.seeding import SeedEpoch, TrainingSampler, seed_worker, stream


def shifting() -> Dataset:
    shift = RandShiftIntensityd(keys="image", offsets=5.0, prob=1.0)
    items = [{"image": torch.arange(8.0).reshape(1, 2, 2, 2)} for _ in range(4)]
    return Dataset(items, transform=Compose([shift]))


class TestStream:
    def test_no_two_places_of_five_seeds_share_one(self) -> None:
        places = [(seed, epoch, rank) for seed in range(5) for epoch in range(300) for rank in range(3)]
        assert len({stream(*place) for place in places}) == len(places)

    def test_takes_any_whole_number(self) -> None:
        assert len({stream(-1, 1), stream(2**63, 1), stream(2**40, 1), stream(0, 1)}) == 4


class TestSeedEpoch:
    def draws(self, seed: int, first_epoch: int = 0, epochs: int = 3) -> list[tuple[float, ...]]:
        dataset = shifting()
        drawn = []

        def step(engine: Engine, batch: Any) -> None:
            random_numbers = random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002
            drawn.append((*random_numbers, float(dataset[0]["image"].sum())))

        engine = Engine(step)
        SeedEpoch(seed, dataset).attach(engine)
        if first_epoch:

            @engine.on(Events.STARTED)
            def resume() -> None:
                engine.state.epoch = first_epoch

        engine.run([0], max_epochs=epochs)
        return drawn

    def test_same_seed_same_draws(self) -> None:
        assert self.draws(seed=5) == self.draws(seed=5)

    def test_every_source_differs_from_epoch_to_epoch(self) -> None:
        first, second, third = self.draws(seed=5)
        assert all(len({*values}) == 3 for values in zip(first, second, third, strict=True))

    def test_resumed_epoch_draws_what_the_uninterrupted_one_did(self) -> None:
        assert self.draws(seed=5, first_epoch=2) == self.draws(seed=5)[2:]

    def test_another_seed_draws_otherwise(self) -> None:
        assert self.draws(seed=5)[0] != self.draws(seed=50)[0]

    def test_the_next_seed_draws_no_epoch_of_this_one(self) -> None:
        first, second = self.draws(seed=5, epochs=4), self.draws(seed=6, epochs=4)
        for source in range(4):
            assert {draws[source] for draws in first}.isdisjoint(draws[source] for draws in second)

    def test_processes_draw_otherwise(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = self.draws(seed=5)
        monkeypatch.setattr(idist, "get_rank", lambda: 1)
        assert {draws[0] for draws in first}.isdisjoint(draws[0] for draws in self.draws(seed=5))


class TestWorkers:
    def loaded(self, seed: int) -> list[float]:
        loader = DataLoader(shifting(), num_workers=2, worker_init_fn=seed_worker)
        found: list[float] = []

        def step(engine: Engine, batch: Any) -> None:
            found.append(float(batch["image"].sum()))

        engine = Engine(step)
        SeedEpoch(seed, loader.dataset).attach(engine)
        engine.run(loader, max_epochs=2)
        return found

    def test_draw_the_same_again_and_each_its_own(self) -> None:
        found = self.loaded(3)
        assert found == self.loaded(3)
        assert len({*found}) == len(found) == 8

    def test_are_none_in_the_main_process(self) -> None:
        with pytest.raises(RuntimeError, match="workers of a data loader"):
            seed_worker(0)


class TestTrainingSampler:
    def orders(self, patch: pytest.MonkeyPatch, seed: int, rank: int = 0) -> list[list[int]]:
        patch.setattr("torch.distributed.get_world_size", lambda *_: 2)
        patch.setattr("torch.distributed.get_rank", lambda *_: rank)
        patch.setattr("torch.distributed.is_available", lambda: True)
        sampler = TrainingSampler(range(20), seed)
        found = []
        for epoch in range(1, 5):
            sampler.set_epoch(epoch)
            found.append(list(sampler))
        return found

    def test_processes_share_the_cases(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for mine, others in zip(self.orders(monkeypatch, 0), self.orders(monkeypatch, 0, rank=1), strict=True):
            assert sorted(mine + others) == list(range(20))

    def test_no_order_comes_again_with_another_epoch_or_seed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        orders = [tuple(order) for seed in range(3) for order in self.orders(monkeypatch, seed)]
        assert len({*orders}) == 12
