"""Child processes with a log that end with their parent, and the reason of a failure as read from the log."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder go unnoticed there
    fcntl = None  # type: ignore[assignment]

GRACE = 10.0  # seconds from asking a process to end to ending it
TAIL = 12  # lines
_ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Warning)\b")
_TRACEBACK = "Traceback (most recent call last)"
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)


class Processes:
    """Runs commands as child processes, also from several threads, until it is stopped."""

    def __init__(self) -> None:
        self._live: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()
        self.stopped = False

    def run(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Run a command, append its output to `log`, and return its exit status.

        The child holds a lock on the log's folder for as long as it lives, even if this process is killed.

        Raises:
            RuntimeError: another process still works in the folder of the log.
        """
        with locked(log.parent) as lock, log.open("ab") as output:
            with self._guard:
                if self.stopped:
                    return -signal.SIGTERM
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    start_new_session=True,  # its own workers end with it, and a Ctrl-C reaches it once
                    pass_fds=() if lock is None else (lock,),
                )
                self._live.add(process)
            try:
                return process.wait()
            finally:
                with self._guard:
                    self._live.discard(process)

    def stop(self) -> None:
        """End the running commands and start no more."""
        with self._guard:
            self.stopped = True
            live = list(self._live)
        for process in live:
            _signal_group(process, signal.SIGTERM)
        for process in live:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)


@contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Context manager that locks a folder; yields the descriptor that a child may inherit to keep the lock.

    Raises:
        RuntimeError: another process holds it.
    """
    if fcntl is None:
        yield None
        return
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RuntimeError(
                f"Another process still works in '{folder}' (a run of the same set, or one that outlived its set). "
                "Wait for it or end it, then start the set again: it goes on where that run has got to."
            ) from error
        yield lock
    finally:
        os.close(lock)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Context manager that turns SIGTERM and SIGHUP into KeyboardInterrupt; main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before: dict[int, Any] = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def read_failure(log: Path, lines: int = TAIL) -> tuple[str, str]:
    """Return from a log the first error of the last traceback, which is the reason, and the last lines."""
    text = log.read_bytes().decode("utf-8", errors="replace") if log.is_file() else ""
    shown = [line.split("\r")[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    shown = [line for line in shown if line]
    begin = max((n for n, line in enumerate(shown) if line.startswith(_TRACEBACK)), default=len(shown))
    while begin and any(line in _CHAINED for line in shown[max(0, begin - 2) : begin]):
        begin = max((n for n, line in enumerate(shown[: begin - 1]) if line.startswith(_TRACEBACK)), default=0)
    reason = next((line for line in shown[begin:] if _ERROR.match(line)), "")
    return f": {reason}" if reason else "", "\n".join(f"    {line}" for line in shown[-lines:])
