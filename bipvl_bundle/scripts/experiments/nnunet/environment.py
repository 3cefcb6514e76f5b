"""Makes nnU-Net's own environment: beside the bundle's packages it would break them."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

NNUNET = "nnunetv2==2.8.1"
STAMP = "installed"
"""The file of a complete environment that says what is in it."""
ENVIRONMENT = "../.venv-nnunet"


def is_there(folder: Path) -> bool:
    """Return whether a folder is an environment with the PyTorch and nnU-Net that are wanted."""
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _wanted()


def ensure_environment(folder: Path) -> Path:
    """Make a virtual environment with nnU-Net where there is none, and return its Python.

    PyTorch of this bundle's version is installed first and alone: nnU-Net alone would bring another. Where that PyTorch
    is a build for CPUs, torchvision, which is then built for CUDA and cannot be loaded, is taken away; nnU-Net's
    default trainer does without it.

    Raises:
        RuntimeError: the environment could not be made.
    """
    python = folder / "bin" / "python"
    if is_there(folder):
        return python
    print(f"Installing nnU-Net into {folder} (3 GB, once) ...")
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    _run([*pip, _torch()])
    _run([*pip, _torch(), NNUNET])
    check = "import torch, sys; sys.exit(torch.version.cuda is None)"
    if subprocess.run([str(python), "-c", check], check=False).returncode:
        _run([str(python), "-m", "pip", "uninstall", "--quiet", "-y", "torchvision"])
    (folder / STAMP).write_text(_wanted(), encoding="utf-8")
    return python


def _torch() -> str:
    return f"torch=={metadata.version('torch').split('+')[0]}"


def _wanted() -> str:
    return f"{_torch()} {NNUNET}\n"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise RuntimeError(
            f"nnU-Net's environment could not be made: {' '.join(command)} ended with status {done.returncode}. Free "
            "3 GB there, and see that the package index can be reached."
        )
