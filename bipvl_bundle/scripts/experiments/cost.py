"""What the network of an experiment costs: size, operations, and the time and memory of its training."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from scripts.experiments.description import BUNDLE_ROOT
from scripts.experiments.records import write_json
from scripts.experiments.steps import ARGUMENTS, CONFIGURATION, INCIDENTAL
from scripts.messages.phrases import first_lines, root_cause
from scripts.networks.operations import count_operations
from scripts.networks.weights import PEAK, count_parameters, read_weights
from scripts.report.curves import read_events

logger = logging.getLogger(__name__)

COST = "cost.json"
"""The file of a run's folder that keeps what was measured."""
ITERATIONS = "train_loss_iteration"
"""The curve of TensorBoard with a point for each iteration of a training."""


@dataclass(frozen=True)
class Cost:
    """What a network costs; None where it is unknown.

    Attributes:
        parameters: of the network.
        operations: floating-point operations of a forward of one ROI in evaluation, see `count_operations`.
        iteration_seconds: median time from one iteration of its training to the next.
        peak_bytes: the largest memory of its training, validations included.
        device: on which it was trained.
    """

    parameters: int | None = None
    operations: int | None = None
    iteration_seconds: float | None = None
    peak_bytes: int | None = None
    device: str | None = None


def cost_of_run(folder: Path) -> Cost:
    """Return what the network of a completed run costs, measured at the first call and then kept in ``COST``.

    The network is built anew from the configuration in the folder, on the CPU. What cannot be known is None; the log
    says why, and the next call tries again.

    Args:
        folder: of the evaluation, with the run's marker in it and the training, if it has one, around it.
    """
    path = folder.parent / COST
    if path.is_file():
        return Cost(**json.loads(path.read_text(encoding="utf-8")))
    try:
        parameters, operations = measure_network(folder)
    except Exception as error:  # a comparison is not to fail for a number that it can do without
        logger.warning("What the network of %s costs is unknown: %s", folder.parent, first_lines(root_cause(error), 2))
        return Cost(**_training(folder.parent))
    found = Cost(parameters, operations, **_training(folder.parent))
    write_json(path, asdict(found))
    return found


def measure_network(folder: Path) -> tuple[int, int]:
    """Build the network of an evaluation from its records; return its parameters and the operations of a forward.

    Raises:
        FileNotFoundError: the folder is not that of an evaluation of this bundle.
        ValueError: its words are others now.
    """
    records = [folder / name for name in (CONFIGURATION, ARGUMENTS)]
    absent = [path.name for path in records if not path.is_file()]
    if absent:
        raise FileNotFoundError(f"{folder} has no {' and no '.join(absent)}: its network is not one of this bundle's.")
    identity, arguments = (json.loads(path.read_text(encoding="utf-8")) for path in records)
    identity = identity["identity"]
    if "network_def" not in identity["configuration"] or "nnunet" in identity:
        raise ValueError(f"the network of {folder} is not one of this bundle's.")
    places = {key: arguments[key] for key in INCIDENTAL if key in arguments}
    parser = ConfigParser({**identity["configuration"], **places, "bundle_root": str(BUNDLE_ROOT), "device": "cpu"})
    words = parser.get_parsed_content("concept_table").digest
    if words != identity["words"]:
        raise ValueError("its concept table has been edited since; the operations would be those of other words.")
    network = parser.get_parsed_content("network_def")
    channels, roi_size = (parser.get_parsed_content(name) for name in ("in_channels", "roi_size"))
    operations = count_operations(network, torch.zeros(1, channels, *roi_size))
    return count_parameters(dict(network.named_parameters())), operations


def parameters_in(checkpoint: Path) -> int | None:
    """Return the number of parameters of a saved model; None if the file is not one of this bundle's."""
    try:
        return count_parameters(read_weights(checkpoint))
    except ValueError:
        return None


def _training(folder: Path) -> dict[str, Any]:
    """Return what the files of a training tell of its time and memory."""
    peak = _peak(folder / "last.pt")
    return {
        "iteration_seconds": _iteration_seconds(folder / "tensorboard"),
        "peak_bytes": peak.get("bytes"),
        "device": peak.get("device"),
    }


def _iteration_seconds(folder: Path) -> float | None:
    """Return the median time between two iterations; epochs' ends, with their validations, hardly move it."""
    times = [event.wall_time for event in read_events(folder).get(ITERATIONS, ())]
    between = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    return statistics.median(between) if between else None


def _peak(path: Path) -> Mapping[str, Any]:
    """Return the largest memory that a run's last state tells of; its tensors are not read."""
    if not path.is_file():
        return {}
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(PEAK)
    except Exception as error:  # what a file that is no checkpoint raises depends on its first bytes
        logger.warning("%s does not tell how much memory its training took: %s", path, first_lines(error))
        return {}
    return found or {}
