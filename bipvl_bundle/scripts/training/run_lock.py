"""Lock of a run's folder: one training at a time writes there."""

from __future__ import annotations

import atexit
import logging
import os
import platform
import time
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # another system than Linux or macOS
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "lock_folder", "release_folders"]

logger = logging.getLogger(__name__)

LOCK = ".training"
"""The file in a run's folder that its training holds; a killed one holds it no more."""

_held: dict[Path, IO[str]] = {}


def lock_folder(folder: str | Path) -> None:
    """Hold a folder for the training of this process, until `release_folders` or the end of the process.

    Of several processes of torchrun, the first one holds it. Where the file system knows no locks a warning is logged.

    Raises:
        RuntimeError: another training holds it; the message says which.
        OSError: the folder cannot be made or written; the message names it.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    path = Path(folder).absolute() / LOCK
    _release(path)  # of an earlier run of this process, which has failed
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while not _hold(path):
            pass
    except OSError as error:
        raise OSError(
            f"'{path.parent}' cannot hold a run: {error.strerror or error}. Free space, or set `ckpt_dir` to a folder "
            "that can be written."
        ) from error


def _hold(path: Path) -> bool:
    """Hold the file; False if its last holder has removed it meanwhile."""
    file = path.open("a+", encoding="utf-8")
    try:
        if fcntl is None:
            raise OSError("this system has none")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        if holder.startswith(f"{_this_process()},"):  # an earlier run, whose modules an annotation server has dropped
            return True
        raise RuntimeError(
            f"Another training writes to '{path.parent}' ({holder or 'it has just begun'}). Let it end, stop it, or "
            "give this one a folder of its own (--output_dir FOLDER)."
        ) from error
    except OSError as error:
        logger.warning("'%s' cannot be locked (%s): let no second training write there.", path.parent, error)
        file.close()
        path.unlink(missing_ok=True)
        return True
    if not _is_still(path, file):
        file.close()
        return False
    file.truncate(0)
    file.write(f"{_this_process()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    file.flush()
    _held[path] = file
    return True


def _this_process() -> str:
    return f"process {os.getpid()} of {platform.node()}"


def _is_still(path: Path, file: IO[Any]) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def release_folders() -> None:
    """Hold no folder any more, and remove the files that said so."""
    for path in list(_held):
        _release(path)


def _release(path: Path) -> None:
    file = _held.pop(path, None)
    if file is not None:
        path.unlink(missing_ok=True)  # while it is held: whoever has opened it meanwhile sees that it is gone
        file.close()


atexit.register(release_folders)
