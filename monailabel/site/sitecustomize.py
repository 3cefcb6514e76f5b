"""Lets torchvision be imported beside a torch without CUDA, where its compiled operators cannot be loaded.

MONAI Label imports torchvision for drawing; nothing here calls an operator, but without their declarations the
import fails. Python runs this file before everything else; it is on the search path of the server alone.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def declare() -> torch.library.Library | None:
    """The declarations, which last as long as they are referred to; None where the operators load."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    try:
        torch.ops.load_library(str(Path(spec.origin).with_name("_C.so")))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for operator in OPERATORS:
            library.define(operator)
        return library
    return None


LIBRARY = declare()
