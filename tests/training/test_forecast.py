from __future__ import annotations

import logging
import time

import pytest
from ignite.engine import Engine, Events

from scripts.training.forecast import TimeForecast


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_the_rest_is_told_after_the_first_epoch_and_the_first_validation(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    def step(engine: Engine, batch: int) -> None:
        clock[0] += 30

    def validate(engine: Engine, batch: int) -> None:
        clock[0] += 100

    trainer, validator = Engine(step), Engine(validate)
    TimeForecast(validator, interval=2).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda _: validator.run([0]))
    with caplog.at_level(logging.INFO, "scripts.training.forecast"):
        trainer.run([0, 1], max_epochs=7)
    assert [record.getMessage() for record in caplog.records] == [
        "About 6 min 00 s for the 6 epochs to come, and the validations (an epoch takes 1 min 00 s).",
        "About 10 min 00 s to the end of the run, with validations (one takes 1 min 40 s).",  # 5 epochs, 3 validations
    ]


def test_a_run_of_one_epoch_foretells_nothing(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    trainer, validator = Engine(lambda *_: None), Engine(lambda *_: None)
    TimeForecast(validator, interval=1).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: validator.run([0]))
    with caplog.at_level(logging.INFO, "scripts.training.forecast"):
        trainer.run([0], max_epochs=1)
    assert not caplog.records
