"""Postprocessing in a thread, while the network segments the next case."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from monai.transforms import Compose

from scripts.data.cases import case_of

Failed = tuple[str, Exception]
"""The name of a case, and what went wrong."""


class BackgroundCompose(Compose):
    """MONAI's `Compose` that does each case at once, or, when `begin` was called, in a thread of its own.

    One case is in the thread at a time, and a call waits for the one before: memory holds the logits of two cases, of
    however many. The transforms are copied, since those that invert others change them while they work.

    Args:
        transforms: from the logits of a case to its file, in order.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        super().__init__(transforms)
        self.failed: list[Failed] = []
        self._thread: ThreadPoolExecutor | None = None
        self._copy: Callable[[Any], Any] = self
        self._last: tuple[str, Future[Any]] | None = None

    def begin(self) -> None:
        """Work in the thread from now on, until `finish`."""
        self._copy = Compose(copy.deepcopy(self.transforms))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postprocessing")

    def __call__(
        self,
        input_: Any,
        start: int = 0,
        end: int | None = None,
        threading: bool = False,
        lazy: bool | None = None,
    ) -> Any:
        """Return the transformed case; while the thread works, the case as it is."""
        if self._thread is None:
            return super().__call__(input_, start, end, threading, lazy)
        self._await()
        self._last = (case_of(dict(input_)), self._thread.submit(self._copy, dict(input_)))
        return input_

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
