"""Handlers and functions that MONAI's supervised engines need for BiPVL-Seg."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from typing import Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, MetaTensor
from monai.engines import Evaluator, Trainer, default_prepare_batch
from torch import Tensor, nn

from scripts.data.partial_labels import LABELLED
from scripts.networks.wrapping import unwrap

logger = logging.getLogger(__name__)


def prepare_batch(
    batchdata: dict[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> Any:
    """Prepare a batch as MONAI's default does, as plain tensors: metadata slows a training step.

    Where cases say which classes are ``labelled`` in them, the network is told.
    """
    batch = default_prepare_batch(batchdata, device, non_blocking, **kwargs)
    image, label = (item.as_tensor() if isinstance(item, MetaTensor) else item for item in batch)
    if LABELLED not in batchdata:
        return image, label
    return image, label, (), {LABELLED: batchdata[LABELLED].tolist()}


def parameter_groups(
    network: nn.Module, loss: nn.Module, *, learning_rate: float, text_learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return optimiser groups: network with weight decay, uncertainties without, text encoder at its own rate.

    Decay would pull log sigma^2 to 0, that is, the weights of all terms to one half.

    Args:
        network: of any kind; a ``text_encoder`` in it is a group of its own.
        loss: with or without parameters.
        learning_rate: the optimiser's own, which all but the text encoder have.
        text_learning_rate: of the text encoder, but no more than ``learning_rate``.
        weight_decay: of the network.
    """
    text = list(getattr(unwrap(network), "text_encoder", nn.Module()).parameters())
    in_text = {id(parameter) for parameter in text}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in in_text]
    groups = [
        {"params": rest, "weight_decay": weight_decay},
        {"params": list(loss.parameters()), "weight_decay": 0.0},
    ]
    if text:
        rate = min(learning_rate, text_learning_rate)
        groups.append({"params": text, "lr": rate, "weight_decay": weight_decay})
    return groups


class ValidateAtEnd:
    """Ignite handler that validates after the last epoch unless the interval did; attach it to the trainer.

    Without it the last epochs would not be validated, and a run shorter than the interval would leave no model. If
    there is no case to validate on, the model of the last epoch is kept, and the log says so before the first.

    Args:
        validator: the evaluator.
        interval: epochs between validations, as of the ``ValidationHandler`` before it.
        best_model: saves the model of a run that cannot be validated; None saves none.
    """

    def __init__(self, validator: Evaluator, interval: int, best_model: Any = None) -> None:
        self.validator = validator
        self.interval = interval
        self.best_model = best_model

    @property
    def has_cases(self) -> bool:
        return len(cast(DataLoader, self.validator.data_loader)) > 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.warn)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def warn(self, engine: Engine) -> None:
        if not self.has_cases:
            logger.warning(
                "There is no case to validate on: the model of the last epoch will be kept, however good or bad. To "
                "have it judged, set some labelled cases aside (the folds; on MONAI Label submit more, or raise "
                "`val_split`)."
            )

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        if epoch != engine.state.max_epochs:
            return
        if self.has_cases and epoch % self.interval:
            self.validator.run(epoch)
        if not self.has_cases and self.best_model is not None:
            self.best_model.save()


class LossTerms:
    """Ignite handler that averages the loss terms per epoch into ``engine.state.metrics``; attach it to the trainer.

    Every handler that reads the metrics, such as MONAI's TensorBoardStatsHandler and StatsHandler, then
    logs them: each loss, each weight, the indicators of collapse, and the learning rate. Of several
    processes, all have the mean over all of them.

    Of the output of an iteration only the loss is left, as the list that MONAI's handlers expect, such as the one
    that ``--tracking mlflow`` adds; the predictions go, with the memory that they hold.

    Args:
        loss: has ``terms`` after each forward, a dictionary of scalars.
        optimizer: whose learning rate is logged.

    Raises:
        ValueError: at the end of an epoch in which a term was not finite, before a checkpoint is saved.
    """

    def __init__(self, loss: Any, optimizer: torch.optim.Optimizer) -> None:
        self.loss = loss
        self.optimizer = optimizer
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = defaultdict(int)

    def attach(self, engine: Trainer) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)

    def reset(self, engine: Engine) -> None:
        self.sums.clear()
        self.counts.clear()

    def add(self, engine: Engine) -> None:
        """Add the terms of an iteration on the device, since reading a number back would wait for it."""
        for name, value in unwrap(self.loss).terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] += 1
        if isinstance(engine.state.output, dict):
            engine.state.output = [{"loss": engine.state.output["loss"].detach()}]

    def _means(self) -> dict[str, float]:
        """Return the means over all processes, which met the same terms in the same order."""
        if not self.sums:
            return {}
        sums = torch.stack([total.double() for total in self.sums.values()])
        counts = torch.tensor([float(self.counts[name]) for name in self.sums], dtype=sums.dtype, device=sums.device)
        reduced = cast(Tensor, idist.all_reduce(torch.stack([sums, counts])))
        return dict(zip(self.sums, (reduced[0] / reduced[1]).tolist(), strict=True))

    def report(self, engine: Engine) -> None:
        means = self._means()
        broken = [name for name, mean in means.items() if not math.isfinite(mean)]
        if broken:
            raise ValueError(
                f"In epoch {engine.state.epoch} {', '.join(broken)} became NaN or infinite; training stops, and the "
                "state saved last is that of the epoch before. Lower `learning_rate` or switch off `amp`, and "
                "begin anew: --overwrite True, or --start_from the best model."
            )
        engine.state.metrics.update({f"train_{name}": mean for name, mean in means.items()})
        engine.state.metrics["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        logger.info(
            "Epoch %s/%s: %s",
            engine.state.epoch,
            engine.state.max_epochs,
            ", ".join(f"{name} {mean:.4g}" for name, mean in means.items() if not name.startswith("log_")),
        )
