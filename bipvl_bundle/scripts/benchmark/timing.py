"""Stopwatch for two networks measured in turn, and ratios of their times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

TOTAL = "total"


class Times(NamedTuple):
    """Wall-clock seconds, and CPU seconds of all threads of the process."""

    wall: float
    cpu: float


class Sample(NamedTuple):
    """Times of one run of a task: of its parts, and of the whole under ``TOTAL``."""

    name: str
    round: int
    parts: dict[str, Times]


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Compute median and quartiles of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


class Stopwatch:
    """Times the parts of a run; on a GPU it synchronises at both ends of each part.

    Args:
        device: the one that the work is done on.
        wall: reads a clock, in seconds.
        cpu: reads the process's CPU time, in seconds.
    """

    def __init__(
        self,
        device: str = "cpu",
        *,
        wall: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.device = torch.device(device)
        self.wall, self.cpu = wall, cpu
        self.parts: dict[str, Times] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context manager that adds the time of its block to a part."""
        start = self._now()
        yield
        end, before = self._now(), self.parts.get(name, Times(0.0, 0.0))
        self.parts[name] = Times(before.wall + end.wall - start.wall, before.cpu + end.cpu - start.cpu)

    def _now(self) -> Times:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Times(self.wall(), self.cpu())


Task = Callable[[Stopwatch], None]


def alternate(
    tasks: Mapping[str, Task], rounds: int, *, warmup: int = 1, watch: Callable[[], Stopwatch] = Stopwatch
) -> Iterator[Sample]:
    """Run tasks in turn, so that other load on the machine affects all of them alike.

    The order is reversed in every other round, so that no task always profits from a warm cache.

    Args:
        tasks: tasks by name; each gets a stopwatch for its parts.
        rounds: number of measured runs of each.
        warmup: number of unmeasured runs of each before.
        watch: makes the stopwatch of a run.

    Raises:
        ValueError: fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"`rounds` must be at least 1; found {rounds}.")
    for number in range(-warmup, rounds):
        for name in list(tasks) if number % 2 == 0 else reversed(list(tasks)):
            stopwatch = watch()
            with stopwatch.part(TOTAL):
                tasks[name](stopwatch)
            if number >= 0:
                yield Sample(name, number, stopwatch.parts)


def ratio(samples: Sequence[Sample], name: str, to: str, *, part: str = TOTAL, kind: str = "cpu") -> Spread:
    """Return median and quartiles of the time ratio of two tasks, taken within each round.

    Args:
        samples: samples of both tasks.
        name: task in the numerator.
        to: task in the denominator.
        part: part of the task.
        kind: wall or cpu.
    """
    by_name = {task: {s.round: getattr(s.parts[part], kind) for s in samples if s.name == task} for task in (name, to)}
    return Spread.of([by_name[name][number] / by_name[to][number] for number in sorted(by_name[name])])


def seconds(samples: Sequence[Sample], name: str, *, part: str = TOTAL, kind: str = "cpu") -> Spread:
    """Return median and quartiles of a task's seconds."""
    return Spread.of([getattr(s.parts[part], kind) for s in samples if s.name == name])


def share(samples: Sequence[Sample], name: str, parts: Sequence[str], *, kind: str = "wall") -> Spread:
    """Return median and quartiles of the share of a task's time that some of its parts took."""
    taken = [
        sum(getattr(s.parts[part], kind) for part in parts) / getattr(s.parts[TOTAL], kind)
        for s in samples
        if s.name == name
    ]
    return Spread.of(taken)
