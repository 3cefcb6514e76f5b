from __future__ import annotations

import itertools

import pytest

from scripts.benchmark.timing import TOTAL, Sample, Spread, Stopwatch, Times, alternate, ratio, seconds, share


def ticking(step: float):
    """A clock that goes on by a step each time it is read."""
    counter = itertools.count()
    return lambda: step * next(counter)


def samples(plain: list[float], guided: list[float]) -> list[Sample]:
    both = {"plain": plain, "guided": guided}
    return [
        Sample(name, i, {TOTAL: Times(wall=10 * value, cpu=value), "save": Times(value, value / 4)})
        for name, values in both.items()
        for i, value in enumerate(values)
    ]


class TestAlternate:
    def test_every_other_round_goes_the_other_way(self):
        order = []
        tasks = {name: lambda watch, name=name: order.append(name) for name in "ab"}
        result = list(alternate(tasks, 3, warmup=1))
        assert "".join(order) == "ba" + "ab" + "ba" + "ab"
        assert [(s.name, s.round) for s in result] == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]

    def test_each_measurement_is_there_before_the_next_is_taken(self):
        runs = []
        turns = alternate({"a": lambda watch: runs.append(1)}, 5, warmup=0)
        next(turns)
        assert len(runs) == 1

    def test_parts_and_total_are_timed_by_both_clocks(self):
        def task(watch):
            for _ in range(2):
                with watch.part("save"):
                    pass

        # Each block reads each clock twice: a part takes one step, the total all five between its two readings.
        watch = lambda: Stopwatch(wall=ticking(1.0), cpu=ticking(0.5))  # noqa: E731
        (sample,) = alternate({"a": task}, 1, warmup=0, watch=watch)
        assert sample.parts == {"save": Times(2.0, 1.0), TOTAL: Times(5.0, 2.5)}

    def test_no_round_raises(self):
        with pytest.raises(ValueError, match="`rounds` must be at least 1; found 0"):
            next(alternate({}, 0))


def test_ratios_are_taken_within_each_round():
    # 2, 1.5, 1, 3 and 1.25; the ratio of the medians would be 1.5 too, that of the sums 1.4.
    measured = samples([1, 2, 10, 1, 4], [2, 3, 10, 3, 5])
    assert ratio(measured, "guided", "plain") == Spread(1.5, 1.25, 2.0)
    assert ratio(measured, "guided", "plain", kind="wall").median == 1.5
    assert ratio(measured, "guided", "plain", part="save").median == 1.5


def test_seconds_are_those_of_one_task_and_kind():
    measured = samples([1, 2, 3], [5, 6, 7])
    assert seconds(measured, "guided", kind="wall") == Spread(60, 55, 65)
    assert seconds(measured, "guided", part="save").median == 1.5


def test_share_of_parts_in_each_run():
    assert share(samples([1, 2], [4, 8]), "guided", ["save"], kind="cpu").median == 0.25


def test_spread_of_one_value_is_that_value():
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
