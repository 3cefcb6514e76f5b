"""Forecast of how long a training will take."""

from __future__ import annotations

import logging
import time

from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer

from scripts.messages.phrases import duration

logger = logging.getLogger(__name__)


class TimeForecast:
    """Ignite handler that logs how long the rest of a run will take, once after its first epoch and once after its
    first validation; attach it to the trainer, before the handlers that validate.

    Args:
        validator: the evaluator.
        interval: epochs between validations; the last epoch is always validated.
    """

    def __init__(self, validator: Evaluator, interval: int) -> None:
        self.validator = validator
        self.interval = interval
        self.epoch: float | None = None  # seconds that the first epoch took
        self.validation: float | None = None
        self.begun = 0.0

    def attach(self, engine: Trainer) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.begin)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.after_epoch)
        self.validator.add_event_handler(Events.STARTED, self.begin)
        self.validator.add_event_handler(Events.COMPLETED, self.after_validation, engine)

    def begin(self, engine: Engine) -> None:
        self.begun = time.perf_counter()

    def after_epoch(self, engine: Engine) -> None:
        if self.epoch is None:
            self.epoch = time.perf_counter() - self.begun
            left = int(engine.state.max_epochs or 0) - engine.state.epoch
            if left > 0:
                text = "About %s for the %d epochs to come, and the validations (an epoch takes %s)."
                logger.info(text, duration(left * self.epoch), left, duration(self.epoch))

    def after_validation(self, engine: Engine, trainer: Engine) -> None:
        if self.validation is not None or self.epoch is None:
            return
        self.validation = time.perf_counter() - self.begun
        last, now = int(trainer.state.max_epochs or 0), trainer.state.epoch
        left = last // self.interval - now // self.interval + (last % self.interval > 0)
        if last > now:
            seconds = (last - now) * self.epoch + left * self.validation
            text = "About %s to the end of the run, with validations (one takes %s)."
            logger.info(text, duration(seconds), duration(self.validation))
