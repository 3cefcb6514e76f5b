"""An ``excepthook`` that prints the message of an error in the last line instead of a traceback."""

from __future__ import annotations

import linecache
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

__all__ = ["SWITCH", "end_in_order", "error_text", "say_when_interrupted", "show_errors_last"]

SWITCH = "BIPVL_TRACEBACK"
"""The environment variable that, set to 1, has the traceback printed above the message."""
FILE = "traceback.txt"
ENDING = ("SIGTERM", "SIGUSR1", "SIGUSR2")
SCRIPTS = Path(__file__).resolve().parents[1]

_on_interrupt: list[str] = []
_CAUSE = "\n\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
_FRAME = re.compile(r'^ +File "(?P<file>[^"]+)", line (?P<line>\d+)(, in .*)?\n(^ {4}.*\n)*', re.MULTILINE)
_KIND = re.compile(r"^[A-Za-z_][\w.]*(: |$)", re.MULTILINE)


def show_errors_last(log_dir: str | Path | None = None) -> None:
    """Install an excepthook that prints the message of an uncaught error last, on stderr.

    - An error that the bundle's own code raises: its message, without the wrappers that MONAI puts around it.
    - Any other: the kind and the message of the first error of the chain, and how to see the traceback.
    - Ctrl-C and the signals ``ENDING``: one line, with how to go on if that is known.

    The exit status stays Python's. For a process that is a command and nothing else: a server or a notebook keeps
    its own way to show errors.

    Args:
        log_dir: the folder that gets the traceback of an error of the second kind, as `traceback.txt`.
    """
    sys.excepthook = partial(_print_error, log_dir=log_dir)


def end_in_order() -> None:
    """Let signals by which schedulers and service managers stop a process end this one as Ctrl-C does.

    Slurm tells the end of a job's time by SIGUSR1 or SIGUSR2, and to all of its processes.

    For the main thread of a process that is a command. A child that was forked ends as if nothing had been said.
    """
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        raise KeyboardInterrupt(signal.Signals(number).name)

    if threading.current_thread() is threading.main_thread():
        for name in ENDING:
            if hasattr(signal, name):  # Windows has the first alone
                signal.signal(getattr(signal, name), stop)


def say_when_interrupted(text: str) -> None:
    """Let the last line of an interrupted process say how to go on."""
    _on_interrupt[:] = [text]


def error_text(error: BaseException) -> tuple[str, bool]:
    """Return the text to print for an error, and whether the bundle's own code composed it.

    The chain of causes is followed from the last error to the first. Where several are the bundle's, the last is
    taken, which has been told more; where none is, the first, which is the reason. It is the printed traceback that
    is read, since of an error in a worker of a ``DataLoader`` nothing else is left.
    """
    links = list(_causes("".join(traceback.format_exception(error))))
    for frames, message in links:
        if frames and _is_raised_by_the_bundle(frames[-1]):
            return _KIND.sub("", message, count=1), True
    return links[-1][1], False


def _causes(report: str) -> Iterator[tuple[list[re.Match[str]], str]]:
    """Return frames, type and message of each error in a printed traceback, the last error first."""
    parts = re.split(f"({re.escape(_CAUSE)}|{re.escape(_CONTEXT)})", report)
    for part, link in zip(parts[::-2], [*parts[-2::-2], _CONTEXT], strict=True):
        frames = list(_FRAME.finditer(part))
        kind = _KIND.search(part, frames[-1].end() if frames else 0)
        yield frames, part[kind.start() if kind else 0 :].strip()
        if link == _CONTEXT:  # that error was handled
            return


def _is_raised_by_the_bundle(frame: re.Match[str]) -> bool:
    """Return whether a frame's line is a ``raise`` in the bundle's code, and not a fault in it."""
    path = Path(frame["file"]).resolve()
    line = linecache.getline(str(path), int(frame["line"]))
    return path.is_relative_to(SCRIPTS) and line.split(maxsplit=1)[:1] == ["raise"]


def _print_error(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    *,
    log_dir: str | Path | None,
) -> None:
    wanted = os.environ.get(SWITCH, "") not in ("", "0")
    if wanted:
        sys.__excepthook__(kind, error, trace)
    if isinstance(error, KeyboardInterrupt):
        text = " ".join([f"Interrupted{f' by {error}' if error.args else ''}.", *_on_interrupt])
    else:
        text, explained = error_text(error)
        if explained:
            text = f"Error: {text}"
        else:
            text += f"\nBiPVL-Seg has no advice on this error. {_where_the_traceback_is(error, log_dir)}"
    _end_progress_bars()
    sys.stdout.flush()
    print(f"\n{text}", file=sys.stderr, flush=True)


def _where_the_traceback_is(error: BaseException, log_dir: str | Path | None) -> str:
    on_screen = f"{SWITCH}=1 in the environment prints it"
    if log_dir is None:
        return f"Its traceback: {on_screen}."
    path = Path(log_dir) / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:  # the disk may be what is wrong
        return f"Its traceback: {on_screen}."
    return f"Its traceback is in {path}; {on_screen}."


def _end_progress_bars() -> None:
    """Close open progress bars, which would be drawn once more at the exit."""
    for bar in list(getattr(tqdm, "_instances", ())):  # tqdm tells of them in no other way
        bar.close()
