"""The windows of a sliding window: their number, and a network that tells of them and heeds a limit of time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Progress = Callable[[float, str], None]
Predict = Callable[[Tensor], Any]


class Windows:
    """Network, or a part of it, that is called window by window: tells of progress, and stops at the limit of time."""

    def __init__(self, predict: Predict, seconds: float, progress: Progress | None, count: int) -> None:
        self.predict = predict
        self.seconds = seconds
        self.progress = progress
        self.count = count
        self.done = 0
        self.begun = time.monotonic()

    def __call__(self, image: Tensor) -> Tensor:
        if time.monotonic() - self.begun > self.seconds:
            raise TimeoutError(f"This takes longer than {self.seconds:.0f} s and was stopped; give a smaller volume.")
        found: Tensor = self.predict(image)
        self.done += len(image)
        if self.progress is not None:
            self.progress(min(0.9, 0.9 * self.done / self.count), f"window {self.done} of {self.count}")
        return found


def count_windows(shape: Sequence[int], roi_size: Sequence[int], overlap: float) -> int:
    """Return how many windows a sliding window takes."""
    steps = [max(1, int(roi * (1 - overlap))) for roi in roi_size]
    return math.prod(
        math.ceil(max(size - roi, 0) / step) + 1 for size, roi, step in zip(shape, roi_size, steps, strict=True)
    )
