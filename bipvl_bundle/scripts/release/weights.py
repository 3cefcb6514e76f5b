"""The file of the weights: tensors only, in half precision where asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from scripts.training.checkpoints import save_atomically


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict under the key ``model`` of a checkpoint, or the checkpoint itself where it is one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"The checkpoint {path} does not exist. Give a trained model as `ckpt_path`.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = dict(content.get("model", content))
        other = sorted(name for name, value in state.items() if not isinstance(value, Tensor))
    except Exception as error:  # what a file that is no checkpoint raises depends on its first bytes
        raise ValueError(f"{path} is not a checkpoint of tensors that PyTorch can read: {error}") from error
    if other or not state:
        raise ValueError(f"{path} is not a trained model: {', '.join(other[:3]) or 'it is empty'}; expected tensors.")
    return state


def in_half(state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The floating-point tensors in half precision; None where one of them does not fit its range."""
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    fits = all(value.isfinite().all() for value in half.values() if value.is_floating_point())
    return half if fits else None


def write_weights(state: dict[str, Tensor], path: Path) -> None:
    """Write a state dict under the key ``model``, where MONAI Label and ``load_model`` look for it."""
    save_atomically({"model": {name: value.contiguous().clone() for name, value in state.items()}}, path)


def digest_of(path: str | Path, kind: str = "sha256") -> str:
    """The digest of a file, in hexadecimal."""
    return hashlib.new(kind, Path(path).read_bytes()).hexdigest()
