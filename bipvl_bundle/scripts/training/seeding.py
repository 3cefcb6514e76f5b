"""Random streams of a training, independent of each other: one for each seed, epoch, process and worker."""

from __future__ import annotations

import random
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import DistributedSampler
from monai.data.utils import set_rnd

SHARED = -1
"""In place of a process's rank: what all processes draw alike."""


def stream(seed: int, *place: int) -> int:
    """Return the 64-bit seed of a stream, as NumPy's `SeedSequence` mixes it from all of its numbers.

    Sums such as `seed + epoch` would let epoch 3 of seed 0 draw what epoch 2 of seed 1 draws, so that the runs of
    several seeds shared nearly all of their patches.

    Args:
        seed: of the run, any whole number.
        place: within the run: epoch, rank, worker.
    """
    numbers = [number % 2**64 for number in (seed, *place)]
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def seed_generators(seed: int, dataset: Any = None) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, and the random transforms of a data set."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - some transforms draw from the global generator
    torch.manual_seed(seed)
    if dataset is not None:
        set_rnd(dataset, seed)


class SeedEpoch:
    """Ignite handler that seeds all random generators by seed, epoch and rank each epoch; attach it to the trainer.

    An epoch then depends on the state of the run at its start alone, so that a resumed run continues
    exactly where an uninterrupted one would be.

    Args:
        seed: of the run.
        dataset: its random transforms are seeded too.
    """

    def __init__(self, seed: int, dataset: Any = None) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed_generators(stream(self.seed, engine.state.epoch, idist.get_rank()), self.dataset)


def seed_worker(worker: int) -> None:
    """Seed a worker of a data loader, as its `worker_init_fn`, by the loader's seed of the epoch and its own number."""
    found = torch.utils.data.get_worker_info()
    if found is None:
        raise RuntimeError("`seed_worker` is called by the workers of a data loader; this process is none.")
    seed_generators(stream(found.seed - worker, worker), found.dataset)


class TrainingSampler(DistributedSampler):
    """MONAI's sampler of shuffled cases for several processes, with an order of its own for each seed and epoch.

    Args:
        dataset: as long on every process.
        seed: of the run.
        shuffle: False takes the cases in their order.
    """

    def __init__(self, dataset: Any, seed: int, *, shuffle: bool = True) -> None:
        super().__init__(dataset, shuffle=shuffle, seed=0)
        self.run_seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(stream(self.run_seed, epoch, SHARED))  # PyTorch adds it to the seed 0
