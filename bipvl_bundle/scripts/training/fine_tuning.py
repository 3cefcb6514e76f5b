"""Handler that keeps and scores the model that a fine-tuning replaces."""

from __future__ import annotations

import logging
import math
import shutil
from itertools import count
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import nn

from scripts.networks.weights import model_state, read_checkpoint
from scripts.training.checkpoints import BestModel
from scripts.training.distributed import unwrap

logger = logging.getLogger(__name__)


class StartingModel:
    """Ignite handler that keeps and scores the model a fine-tuning replaces; attach it after what loads weights.

    A training is a fine-tuning if its network has, at the start, the weights of a file in the folder where the best
    model will be saved, as on an annotation server. The model to be replaced is then copied to the first free name of
    `model_1.pt`, `model_2.pt`, ..., and validated once before the first epoch. At the end the log compares both models
    and warns if the new one is worse. In any other training the handler does nothing.

    Args:
        validator: the evaluator that `best_model` is attached to; one without cases scores nothing.
        best_model: saves the best model of the run, better or worse than the first.
    """

    def __init__(self, validator: Evaluator, best_model: BestModel) -> None:
        self.validator = validator
        self.best_model = best_model
        self.start: Path | None = None  # where the weights of the start are to be found afterwards
        self.score = math.nan

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.keep)
        engine.add_event_handler(Events.COMPLETED, self.compare)

    def keep(self, engine: Engine) -> None:
        path = self.best_model.path
        found = None if engine.state.epoch else self._start()  # an epoch: the run is resumed
        if found is None:
            return
        copy = next(name for n in count(1) if not (name := path.with_stem(f"{path.stem}_{n}")).exists())
        idist.barrier()  # all have found the same name
        if path.is_file() and idist.get_rank() == 0:
            shutil.copy2(path, copy)
        self.start = copy if found == path else found
        self.score = self._validate()
        logger.info("Fine-tuning of %s (validation: %.4f), which stays as %s.", found, self.score, self.start.name)

    def _start(self) -> Path | None:
        path = self.best_model.path
        files = dict.fromkeys([path, *sorted(path.parent.glob(f"*{path.suffix}"))])  # each is read once
        return next((file for file in files if is_saved_as(self.best_model.network, file)), None)

    def _validate(self) -> float:
        """Return the key metric, hidden from `best_model` and the evaluator."""
        if not len(self.validator.data_loader):  # type: ignore[arg-type]
            return math.nan
        best, self.best_model.best = self.best_model.best, math.inf
        self.validator.run()
        self.best_model.best = best
        state = self.validator.state
        state.best_metric, state.best_metric_epoch = -1, -1
        return float(state.metrics[state.key_metric_name])

    def compare(self, engine: Engine) -> None:
        if self.start is None or math.isnan(self.score):
            return
        path, score = self.best_model.path, self.best_model.best
        if score < self.score:
            logger.warning(
                "%s is WORSE than what this training started from, %.4f against %.4f on its validation cases. That is "
                "%s; to go back, put it in the place of %s.",
                path,
                score,
                self.score,
                self.start,
                path.name,
            )
        else:
            logger.info("%s: %.4f before this training, %.4f now.", path, self.score, score)


def is_saved_as(network: nn.Module, path: Path) -> bool:
    """Return whether a file holds exactly the present weights of a network."""
    try:
        saved = model_state(read_checkpoint(path, quiet=True))
    except (FileNotFoundError, ValueError):  # there is none, or it is no checkpoint
        return False
    weights = dict(unwrap(network).named_parameters())
    return weights.keys() <= saved.keys() and all(
        saved[name].shape == weight.shape and torch.equal(saved[name].to(weight.device, weight.dtype), weight)
        for name, weight in weights.items()
    )
