"""Handler that keeps the old model in use until a fine-tuning has made one that scores no worse."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.engines import Evaluator
from torch import nn
from torch.utils.data import Subset

from scripts.data.fingerprints import is_among
from scripts.data.image_kind import join_images
from scripts.networks.weights import model_state, read_checkpoint, record_of
from scripts.networks.wrapping import unwrap
from scripts.training.checkpoints import BestModel, load_model
from scripts.whole_file import whole_file, write_text

logger = logging.getLogger(__name__)

OUTCOME = "fine_tuning.json"
"""The file beside the models that says how the last fine-tuning came out."""


class Judgement(NamedTuple):
    """The key metric of the model in use and of the new one, on the same cases."""

    before: float
    after: float
    cases: int


class StartingModel:
    """Ignite handler that keeps the old model in use until the new one scores no worse; attach it to the trainer, last.

    A training is a fine-tuning if its network has, at the start, the weights of a file in the folder where the best
    model will be saved, as on an annotation server. Its best model is saved under the first free name of
    `model_1.pt`, `model_2.pt`, .... At the end both models are scored on the validation cases that neither was trained
    on, as far as their files know. The two files then exchange names, unless the new model is worse. The log and
    `fine_tuning.json` say which is which. If there is no such case, the new model is used. In any other training the
    handler does nothing.

    Args:
        validator: the evaluator that `best_model` is attached to; one without cases scores nothing.
        best_model: saves the best model of the run.
    """

    def __init__(self, validator: Evaluator, best_model: BestModel) -> None:
        self.validator = validator
        self.best_model = best_model
        self.in_use = best_model.path
        self.begun = 0  # epochs before this run

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.keep)
        engine.add_event_handler(Events.COMPLETED, self.compare)

    def keep(self, engine: Engine) -> None:
        path, self.begun = self.in_use, engine.state.epoch
        found = None if self.begun else self._start()  # a run that is resumed has its file
        if found is None:
            return
        new = next(name for n in count(1) if not (name := path.with_stem(f"{path.stem}_{n}")).exists())
        idist.barrier()  # all have found the same name
        self.best_model.path = new
        old, record = record_of(read_checkpoint(found, quiet=True)), self.best_model.record
        self.best_model.trained_on = sorted({*old.get("trained_on", ()), *self.best_model.trained_on})
        record["images"] = join_images(old.get("images", {}), record.get("images", {}))
        logger.info("Fine-tuning of %s; %s stays in use until %s has proved no worse.", found, path.name, new.name)

    def _start(self) -> Path | None:
        path = self.in_use
        files = dict.fromkeys([path, *sorted(path.parent.glob(f"*{path.suffix}"))])  # each is read once
        return next((file for file in files if is_saved_as(self.best_model.network, file)), None)

    def compare(self, engine: Engine) -> None:
        """Compare the new model with the one in use, which it replaces unless it is worse."""
        path, new = self.in_use, self.best_model.path
        if new == path or not new.is_file() or engine.state.epoch == self.begun:
            return
        found = self._judgement()
        worse = found is not None and not found.after >= found.before
        idist.barrier()  # all have read both
        if idist.get_rank() == 0:
            if not worse:
                _exchange(path, new)
            self._tell(found, worse=worse)

    def _judgement(self) -> Judgement | None:
        loader, seen = self.validator.data_loader, {*self.best_model.trained_on}
        if not self.in_use.is_file() or not len(loader):  # type: ignore[arg-type]
            return None
        seen.update(record_of(read_checkpoint(self.in_use, quiet=True)).get("trained_on", ()))
        dataset: Any = loader.dataset  # type: ignore[union-attr]
        unseen = [index for index, item in enumerate(dataset.data) if not is_among(item, seen)]
        if not unseen:
            return None
        try:
            before, after = (self._score(file, unseen) for file in (self.in_use, self.best_model.path))
        except ValueError as error:  # the model in use is of another network, and not the one that was started from
            logger.warning("%s", error)
            return None
        return Judgement(before, after, len(unseen))

    def _score(self, file: Path, cases: list[int]) -> float:
        """The key metric of a model, of which neither `best_model` nor the evaluator is to remember anything."""
        load_model(self.best_model.network, file)
        validator, best = self.validator, self.best_model.best
        loader, length = validator.data_loader, validator.state.epoch_length
        self.best_model.best = math.inf
        validator.data_loader = DataLoader(Subset(loader.dataset, cases), batch_size=1)  # type: ignore[union-attr]
        validator.state.epoch_length = len(cases)
        validator.run()
        validator.data_loader, validator.state.epoch_length, self.best_model.best = loader, length, best
        validator.state.best_metric, validator.state.best_metric_epoch = -1, -1
        return float(validator.state.metrics[validator.state.key_metric_name])

    def _tell(self, found: Judgement | None, *, worse: bool) -> None:
        name, other = self.in_use.name, self.best_model.path.name
        old = f"the one before is {other}" if self.best_model.path.is_file() else "there was none before"
        if found is None:
            text = f"NOT JUDGED, without a case that neither model was trained on: {name} is the new model, {old}."
        else:
            by = f"{found.after:.4f} against {found.before:.4f} on {found.cases} cases that neither was trained on"
            text = f"No worse, {by}: {name} is the new model, {old}."
            if worse:
                text = f"WORSE, {by}: {name} is what it was and stays in use; the new model is {other}."
        logger.log(logging.INFO if found and not worse else logging.WARNING, text)
        content = {"text": text, "worse": worse, **(found._asdict() if found else {})}
        write_text(self.in_use.with_name(OUTCOME), json.dumps(content, indent=2) + "\n")


def _exchange(one: Path, other: Path) -> None:
    """Let two files change names, or let the other one have the name of the first where there is none."""
    if not one.is_file():
        os.replace(other, one)
        return
    with whole_file(other) as partial:
        shutil.copy2(one, partial)
        os.replace(other, one)


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
