"""Handler that says which settings to lower when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.engines import Trainer
from monai.inferers import SlidingWindowInferer, SlidingWindowInfererAdapt
from torch import Tensor, nn

from scripts.messages.phrases import first_lines

# What PyTorch says in a plain RuntimeError where it is not an OutOfMemoryError.
PLAIN_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class Advice(NamedTuple):
    """When a setting can be lowered, given its value, and how."""

    applies: Callable[[Any], bool]
    text: str


ADVICE = {
    "amp": Advice(lambda on: not on, "true computes in 16 bits on a GPU, in about half the memory"),
    "crops_per_volume": Advice(lambda count: count > 1, "lower it; memory grows in proportion"),
    "batch_size": Advice(lambda count: count > 1, "lower it; memory grows in proportion"),
    "sw_batch_size": Advice(lambda count: count > 1, "lower it; the result is the same"),
    "roi_size": Advice(lambda edges: True, "smaller edges; memory grows with the number of voxels"),
}
CHECKPOINTING = "true computes the encoder twice in a step, in place of keeping its activations"
STITCHING = "cpu keeps the logits of the whole volume, one channel a class, out of the GPU's memory"


class MemoryAdvice:
    """Ignite handler that replaces an out-of-memory error by a ``MemoryError`` naming settings to lower.

    Attach it to a trainer or an evaluator, before handlers that look at exceptions too. Besides the settings it
    names what it finds in the engine: a trainer's network that could recompute activations and does not
    (``use_checkpoint``), an evaluator that stitches on a GPU.

    Args:
        settings: names of the configuration, those in ``ADVICE``, with their values in this run, in the order
            in which to try them.

    Raises:
        ValueError: a setting that there is no advice for.
        MemoryError: from the engine's run, with the original error as its cause.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        unknown = set(settings) - set(ADVICE)
        if unknown:
            raise ValueError(f"MemoryAdvice knows of {', '.join(ADVICE)}; found {', '.join(sorted(unknown))}.")
        self.settings = dict(settings)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EXCEPTION_RAISED, self)

    def __call__(self, engine: Engine, error: BaseException) -> None:
        causes = list(_chain(error))
        shortage = next(filter(is_out_of_memory, causes), None)
        if shortage is None or any(isinstance(cause, MemoryError) for cause in causes):
            raise error  # Ignite leaves that to its handlers; an evaluator within a trainer may have spoken already
        lines = [f"{_doing(engine)} ran out of memory: {first_lines(shortage)}"]
        lines += ["To need less, change one after the other:"]
        lines += [f"  {name}: {text}, now {now}" for name, text, now in self._options(engine)]
        raise MemoryError("\n".join(lines)) from error

    def _options(self, engine: Engine) -> Iterator[tuple[str, str, Any]]:
        """Return each setting that can be lowered, with its value and how to lower it."""
        training = isinstance(engine, Trainer)
        if training and _could_checkpoint(getattr(engine, "network", None)):
            yield "backbone#network#use_checkpoint", CHECKPOINTING, False
        if not training and _stitches_on_gpu(engine):
            yield "validate#inferer#device", STITCHING, "that of the network"
        for name, value in self.settings.items():
            if ADVICE[name].applies(value):
                suffix = "" if training or name != "roi_size" else ", in training too"
                yield name, ADVICE[name].text + suffix, value


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is PyTorch's out-of-memory error, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in PLAIN_MESSAGES)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes; MONAI wraps the errors of transforms."""
    while error is not None:
        yield error
        error = error.__cause__


def _could_checkpoint(network: nn.Module | None) -> bool:
    switches = [m.use_checkpoint for m in network.modules() if hasattr(m, "use_checkpoint")] if network else []
    return bool(switches) and not any(switches)


def _stitches_on_gpu(engine: Engine) -> bool:
    inferer = getattr(engine, "inferer", None)
    if not isinstance(inferer, SlidingWindowInferer) or isinstance(inferer, SlidingWindowInfererAdapt):
        return False  # the latter goes to the CPU by itself
    device = inferer.device if inferer.device is not None else getattr(engine.state, "device", "cpu")
    return torch.device(device).type != "cpu"


def _doing(engine: Engine) -> str:
    batch: Any = engine.state.batch
    items = batch if isinstance(batch, list) else [batch]
    images = [item["image"] for item in items if isinstance(item, Mapping) and "image" in item]
    shapes = [str(tuple(image.shape)) for image in images if isinstance(image, Tensor)]
    kind = "Training" if isinstance(engine, Trainer) else "Inference"
    return f"{kind} on a batch of images {' and '.join(shapes)}" if shapes else kind
