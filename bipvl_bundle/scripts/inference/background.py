"""Postprocessing in a thread, while the network segments the next case."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from scripts.data.cases import case_of

Failed = tuple[str, Exception]
"""The name of a case, and what went wrong."""


class Background:
    """Callable that applies a transform to each case: at once, or, when `begin` was called, in a thread of its own.

    One case is in the thread at a time, and a call waits for the one before: memory holds the logits of two cases, of
    however many. The transform is copied, since transforms that invert others change them while they work.

    Args:
        transform: from the logits of a case to its file, such as `postprocessing`.
    """

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform
        self.failed: list[Failed] = []
        self._thread: ThreadPoolExecutor | None = None
        self._copy: Callable[[Any], Any] = transform
        self._last: tuple[str, Future[Any]] | None = None

    def begin(self) -> None:
        """Work in the thread from now on, until `finish`."""
        self._copy = copy.deepcopy(self.transform)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postprocessing")

    def __call__(self, data: Mapping[str, Any]) -> Any:
        """Return the transformed case; while the thread works, the case as it is."""
        if self._thread is None:
            return self.transform(data)
        self._await()
        self._last = (case_of(dict(data)), self._thread.submit(self._copy, dict(data)))
        return data

    def finish(self) -> list[Failed]:
        """Wait for the thread and end it; return the cases that it failed at since `begin`, with their errors."""
        self._await()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        failed, self.failed = self.failed, []
        return failed

    def _await(self) -> None:
        if self._last is None:
            return
        (case, future), self._last = self._last, None
        try:
            future.result()
        except Exception as error:  # of whatever kind: it is that case's, which is long over for the network
            self.failed.append((case, error))
