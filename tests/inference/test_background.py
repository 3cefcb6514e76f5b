from __future__ import annotations

import threading
from typing import Any

import pytest

from scripts.inference.background import BackgroundCompose


class Noting:
    """A transform that notes its thread and fails at one case, when it is let go on."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __deepcopy__(self, memo: Any) -> Noting:
        return self  # to be looked at

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        assert self.gate.wait(20)
        self.threads.add(threading.current_thread().name)
        if data["case"] == "bad":
            raise OSError("the disk is full")
        self.done.append(data["case"])
        return {**data, "mask": 1}


def test_works_at_once_until_it_is_told_otherwise() -> None:
    transform = Noting()
    background = BackgroundCompose([transform])
    assert background({"case": "a"}) == {"case": "a", "mask": 1}
    with pytest.raises(RuntimeError) as caught:
        background({"case": "bad"})
    assert "disk" in str(caught.value.__cause__)
    assert transform.threads == {"MainThread"}
    assert background.finish() == []


def test_goes_on_while_a_case_is_in_the_thread() -> None:
    transform = Noting()
    background = BackgroundCompose([transform])
    background.begin()
    transform.gate.clear()
    assert background({"case": "a", "image": "a"}) == {"case": "a", "image": "a"}  # returns though nothing is done
    assert transform.done == []
    transform.gate.set()
    background({"case": "b", "image": "b"})
    assert transform.done[0] == "a"
    assert background.finish() == []
    assert transform.done == ["a", "b"]
    assert "MainThread" not in transform.threads
    assert background({"case": "c"}) == {"case": "c", "mask": 1}  # at once again


def test_no_more_than_one_case_waits() -> None:
    """A second call returns after the first case is done, so that memory holds no more."""
    transform = Noting()
    background = BackgroundCompose([transform])
    background.begin()
    for number in range(5):
        background({"case": str(number), "image": ""})
        assert len(transform.done) >= number
    background.finish()


def test_failures_are_told_at_the_end_by_case() -> None:
    background = BackgroundCompose([Noting()])
    background.begin()
    for case in ("a", "bad", "b"):
        background({"case": case, "image": case})
    ((case, error),) = background.finish()
    assert (case, str(error.__cause__)) == ("bad", "the disk is full")
    assert background.finish() == []
