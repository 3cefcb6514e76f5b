"""The weights of a network as a file: written whole, read without running code, counted, in half precision."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BATCH_STATISTICS = ("running_mean", "running_var")


def save_atomically(content: Any, path: Path) -> None:
    """Write a checkpoint so that a kill or a full disk never leaves half of one under its name.

    Raises:
        OSError: the folder cannot be written; an older file of that name is untouched.
    """
    partial = path.with_name(path.name + ".partial")  # one name: what a kill leaves is written over by the next
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)
        raise OSError(
            f"The checkpoint {path} could not be written: {error}. Free space or set `ckpt_dir` to a folder "
            "that can be written; checkpoints already there are untouched."
        ) from error


def read_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """A file of tensors, as a dictionary.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"The checkpoint {path} does not exist. Train first (`python -m monai.bundle run training ...`), "
            "or give the path of a trained model."
        )
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # what a file that is no checkpoint raises depends on its first bytes
        raise ValueError(f"{path} is not a checkpoint of tensors that PyTorch can read: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}; expected a dictionary of tensors.")
    return state


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict under the key ``model`` of a checkpoint, or the checkpoint itself where it is one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else than tensors, or nothing.
    """
    checkpoint = read_checkpoint(path)
    found = checkpoint.get("model", checkpoint)
    state = dict(found) if isinstance(found, Mapping) else {}
    other = sorted(name for name, value in state.items() if not isinstance(value, Tensor))
    if other or not state:
        raise ValueError(f"{path} is not a trained model: {', '.join(other[:3]) or 'it holds none'}; expected tensors.")
    return state


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict under the key ``model``, where MONAI Label and ``load_model`` look for it."""
    save_atomically({"model": {name: value.contiguous().clone() for name, value in state.items()}}, path)


def in_half(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The floating-point tensors in half precision; None where one of them does not fit its range."""
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    fits = all(value.isfinite().all() for value in half.values() if value.is_floating_point())
    return half if fits else None


def count_parameters(state: Mapping[str, Tensor]) -> int:
    """Floating-point numbers of a state dict, less the running statistics of batch norms."""
    counted = {name: value for name, value in state.items() if not name.endswith(BATCH_STATISTICS)}
    return sum(value.numel() for value in counted.values() if value.is_floating_point())
