"""Checkpoint files: safe reading and writing with a digest, half precision.

A model's file is a flat state dict, which any tool loads. What else is known of the model, such as fingerprints of the
cases that it was trained on, is an attribute of the dictionary: no entry that a strict loading would stumble over.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.trust.digests import add_digest, check_digest
from scripts.whole_file import whole_file

logger = logging.getLogger(__name__)

NO_PARAMETERS = ("running_mean", "running_var", "frozen_texts")
"""How the names of numbers end that no training changes: statistics of batch norms, vectors of a frozen encoder."""
_kept: dict[tuple[Any, ...], tuple[dict[str, Any], str | None]] = {}
"""The content of one file, by its path, device, inode, size and time, until the next call of `read_checkpoint`."""
RECORD = "record"
"""The attribute of a state dict that holds what is known of the model; torch.load keeps it, `dict()` does not."""

PEAK = "peak_memory"
"""The key of a run's last state under which the largest memory stands that it took."""


def save_atomically(content: Any, path: Path) -> None:
    """Write a checkpoint with a digest; a kill or a full disk never leaves half a file under its name.

    Raises:
        OSError: the folder cannot be written; an older file of that name is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            torch.save(content, partial)
            add_digest(partial)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"The checkpoint {path} could not be written: {error}. Free space or set `ckpt_dir` to a folder "
            "that can be written; checkpoints already there are untouched."
        ) from error


def read_checkpoint(
    path: str | Path, device: str | torch.device = "cpu", *, quiet: bool = False, keep: bool = False
) -> dict[str, Any]:
    """Read a file of tensors as a dictionary, after checking its digest.

    Args:
        path: to be read.
        device: where the tensors are wanted.
        quiet: not to log what the digest says.
        keep: hold the content for the next call, which then need not read an unchanged file again.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or is not what was written any more.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"The checkpoint {path} does not exist. Train first (`python -m monai.bundle run training ...`), "
            "or give the path of a trained model."
        )
    facts = Path(path).stat()
    version = (str(Path(path).absolute()), str(device), facts.st_ino, facts.st_size, facts.st_mtime_ns)
    state, digest = _kept[version] if version in _kept else _read(path, device)
    _kept.clear()
    if keep:
        _kept[version] = state, digest
    if digest is None and not quiet:
        logger.warning("%s carries no digest: damage to it would go unnoticed. Saved anew, it has one.", path)
    elif not quiet:
        logger.info("%s is what was written (SHA-256 %s...).", path, digest[:12] if digest else "")
    return state


def _read(path: str | Path, device: str | torch.device) -> tuple[dict[str, Any], str | None]:
    digest = check_digest(Path(path))
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # what a file that is no checkpoint raises depends on its first bytes
        # PyTorch's own message advises to load the file without `weights_only`, which may run what it holds
        raise ValueError(
            f"{path} is not a checkpoint of tensors that PyTorch can read ({type(error).__name__}). Is it a model file "
            "of this bundle, and was it copied whole?"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}; expected a dictionary of tensors.")
    return state, digest


def model_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the state dict of a checkpoint: under the key ``model``, as in last.pt, or all of it."""
    found = checkpoint.get("model")
    return found if isinstance(found, dict) else checkpoint


def record_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint records about its model beside the weights; empty if nothing."""
    record = getattr(checkpoint, RECORD, None)
    if isinstance(record, dict):
        return record
    nested = model_state(checkpoint) is not checkpoint  # a run's last state, or a model before they were flat
    return {"trained_on": checkpoint["trained_on"]} if nested and "trained_on" in checkpoint else {}


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a trained model; see `model_state`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else than tensors, or nothing.
    """
    state = model_state(read_checkpoint(path))
    other = sorted(name for name, value in state.items() if not isinstance(value, Tensor))
    if other or not state:
        raise ValueError(f"{path} is not a trained model: {', '.join(other[:3]) or 'it holds none'}; expected tensors.")
    return state


def write_weights(state: Mapping[str, Tensor], path: Path, record: Mapping[str, Any] | None = None) -> None:
    """Write the state dict of a model, with further facts as its attribute ``record``.

    Args:
        state: tensors by name; no more of them is stored than they show.
        path: the file.
        record: texts, numbers, lists and mappings of them.

    Raises:
        OSError: as for `save_atomically`.
    """
    content = OrderedDict((name, value.contiguous().clone()) for name, value in state.items())
    for name, value in {"_metadata": getattr(state, "_metadata", None), RECORD: dict(record or {})}.items():
        setattr(content, name, value)
    save_atomically(content, path)


def in_half(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the floating-point tensors in half precision; None if one does not fit its range."""
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    fits = all(value.isfinite().all() for value in half.values() if value.is_floating_point())
    return half if fits else None


def count_parameters(state: Mapping[str, Tensor]) -> int:
    """Count the floating-point numbers of a state dict, without ``NO_PARAMETERS``."""
    counted = {name: value for name, value in state.items() if not name.endswith(NO_PARAMETERS)}
    return sum(value.numel() for value in counted.values() if value.is_floating_point())
