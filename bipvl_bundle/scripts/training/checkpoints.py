"""Handlers that save the best model of a run and its last state, and loading of weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer
from torch import nn

from scripts.configuration.errors import say_when_interrupted
from scripts.data.fingerprints import require_unseen_by_model
from scripts.messages.phrases import first_lines
from scripts.networks.weights import PEAK, model_state, read_checkpoint, record_of, save_atomically, write_weights
from scripts.networks.wrapping import unwrap
from scripts.training.peak_memory import peak_memory
from scripts.training.resuming import kept_settings, require_same_settings
from scripts.whole_file import write_text

logger = logging.getLogger(__name__)

SETTINGS = "settings"
"""The key of the last state under which the run's settings stand."""
PLAN = "plan.json"
"""The file beside a best model that tells how it was trained."""


def load_model(
    network: nn.Module,
    path: str | Path,
    device: str | torch.device = "cpu",
    unseen: Sequence[dict[str, Any]] = (),
    option: str = "load_weights",
) -> nn.Module:
    """Load the weights of a trained model into a network; raises an error if one is missing.

    Args:
        network: on any device.
        path: a model's file (`write_weights`), or one whose key ``model`` holds a state dict, as `last.pt`.
        unseen: cases that it must not have been trained on, as far as the file knows (`BestModel`).
        option: of the configuration, by which `unseen` is given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint, or damaged, or one of another network or other classes, or was trained
            on a case that is to be unseen.
    """
    path = Path(path)
    state = read_checkpoint(path, device)
    require_unseen_by_model(record_of(state).get("trained_on", ()), unseen, f"The checkpoint {path}", option)
    try:
        unwrap(network).load_state_dict(model_state(state))
    except RuntimeError as error:
        raise ValueError(
            f"The checkpoint {path} does not fit the network of this configuration: {first_lines(error, 4)} "
            "Use the configuration that it was trained with."
        ) from error
    logger.info("Loaded the model %s.", path)
    return network


class BestModel:
    """Ignite handler that saves the model with the highest key metric to ``path``; attach it to the evaluator.

    Args:
        network: what to save, see `write_weights`.
        path: usually ``models/model.pt``.
        trained_on: `fingerprints` of the training cases, in the file's record under that key.
        record: what else the file is to know, such as `training_record`; its text under ``PLAN`` goes to a file of that
            name beside ``path``.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str | Path,
        trained_on: Sequence[str] = (),
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = network
        self.record = dict(record or {})
        self.plan = self.record.pop(PLAN, None)
        self.path = Path(path)
        self.trained_on = list(trained_on)
        self.best = float("-inf")

    def attach(self, engine: Evaluator) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Evaluator) -> None:
        name = engine.state.key_metric_name
        value = float(engine.state.metrics[name])
        if value > self.best:  # in every process: each compares with it at the end of a fine-tuning
            self.best = value
            self.save()
            logger.info("Best %s so far: %.4f, saved as %s.", name, value, self.path)

    def save(self) -> None:
        """Save the network whatever its score; of several processes the first one saves."""
        if idist.get_rank() == 0:
            seen = {"trained_on": self.trained_on} if self.trained_on else {}
            write_weights(unwrap(self.network).state_dict(), self.path, {**self.record, **seen})
            if self.plan is not None:
                write_text(self.path.with_name(PLAN), self.plan)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "file": self.path.name}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = state["best"]
        self.path = self.path.with_name(state.get("file", self.path.name))  # that of a fine-tuning is not yet in use


class LastState:
    """Ignite handler that saves the state of a run after each epoch and resumes from it; attach it to the trainer.

    Put it last in the list of handlers, after validation and learning-rate schedule.

    Args:
        objects: what makes up the run besides the trainer: model, optimizer, lr_scheduler, loss, ...
        path: the file, overwritten after each epoch.
        resume: continue from ``path`` where it exists.
        interval: epochs from one saving to the next; the last epoch is always saved.
        trained_on: `fingerprints` of the training cases.

    Raises:
        ValueError: the file is the state of a run with other settings (`require_same_settings`), on other cases, or of
            another length (the learning-rate schedule spans the whole run).
        FileNotFoundError: only some of several processes see the file.
    """

    def __init__(
        self,
        objects: Mapping[str, Any],
        path: str | Path,
        *,
        resume: bool = False,
        interval: int = 1,
        trained_on: Sequence[str] = (),
    ) -> None:
        self.objects = dict(objects)
        self.path = Path(path)
        self.resume = resume
        self.interval = interval
        self.trained_on = list(trained_on)
        self.peak: dict[str, Any] | None = None

    def attach(self, engine: Trainer) -> None:
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.restore)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        due = engine.state.epoch % self.interval == 0 or engine.state.epoch == engine.state.max_epochs
        if due and idist.get_rank() == 0:
            state = {name: unwrap(item).state_dict() for name, item in self._parts(engine).items()}
            progress = {key: getattr(engine.state, key) for key in ("epoch", "iteration", "max_epochs")}
            self.peak = max(filter(None, (peak_memory(), self.peak)), key=lambda peak: peak["bytes"], default=None)
            facts = {"trainer": progress, "trained_on": self.trained_on, SETTINGS: kept_settings(), PEAK: self.peak}
            save_atomically({**state, **facts}, self.path)
            say_when_interrupted(
                f"The state after epoch {progress['epoch']} is in {self.path}. To go on: the same command with "
                "--resume True."
            )

    def _parts(self, engine: Engine) -> dict[str, Any]:
        scaler = getattr(engine, "scaler", None)  # of mixed precision on a GPU
        return {**self.objects, **({"scaler": scaler} if scaler is not None else {})}

    def _is_there(self) -> bool:
        seeing = float(idist.all_reduce(float(self.path.is_file())))
        if 0 < seeing < idist.get_world_size():
            raise FileNotFoundError(
                f"{self.path} exists for {int(seeing)} of the {idist.get_world_size()} processes only. Set `ckpt_dir` "
                "to a folder that all machines share."
            )
        return seeing > 0

    def restore(self, engine: Engine) -> None:
        if not self._is_there():
            logger.warning("Nothing to resume: %s does not exist. Training starts from the beginning.", self.path)
            return
        state = read_checkpoint(self.path, "cpu")
        parts = self._parts(engine)
        if "scaler" in parts and "scaler" not in state:  # the run was begun without mixed precision
            del parts["scaler"]
        absent = {"trainer", *parts} - set(state)
        if absent:
            raise ValueError(
                f"{self.path} is not the state of such a run: it lacks {sorted(absent)}. Set `resume` to "
                "false, or `ckpt_dir` to the folder of the run."
            )
        require_same_settings(state.get(SETTINGS, {}), kept_settings(), self.path)
        progress = state["trainer"]
        if progress["max_epochs"] != engine.state.max_epochs:
            raise ValueError(
                f"{self.path} belongs to a run of {progress['max_epochs']} epochs; this one has "
                f"{engine.state.max_epochs}. The learning-rate schedule spans the whole run: set "
                f"`max_epochs` to {progress['max_epochs']}, or start anew with `resume` false."
            )
        kept = state.get("trained_on")
        if kept and self.trained_on and set(kept) != set(self.trained_on):
            gone = len(set(kept) - set(self.trained_on))
            raise ValueError(
                f"{self.path} belongs to a run on other cases: {gone} of its {len(kept)} are none of the "
                f"{len(self.trained_on)} to train on now. Set `fold`, `num_folds`, `seed` and "
                "`dataset_dir` to those of that run, or `ckpt_dir` to a folder of this one's own."
            )
        try:
            for name, item in parts.items():
                unwrap(item).load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(
                f"{self.path} cannot be resumed by this configuration ('{name}'): {first_lines(error, 4)}"
            ) from error
        self.peak = state.get(PEAK)
        engine.state.epoch, engine.state.iteration = progress["epoch"], progress["iteration"]
        logger.info("Resumed %s after epoch %d.", self.path, engine.state.epoch)
