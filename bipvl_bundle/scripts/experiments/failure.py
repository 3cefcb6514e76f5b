"""Why a run failed, as its log tells."""

from __future__ import annotations

import re
from pathlib import Path

TAIL = 12  # lines
_ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Warning)\b")
_TRACEBACK = "Traceback (most recent call last)"
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)


def read_failure(log: Path, lines: int = TAIL) -> tuple[str, str]:
    """The first error of the last traceback in a log, which is the reason that monai wraps, and the last lines."""
    text = log.read_bytes().decode("utf-8", errors="replace") if log.is_file() else ""
    shown = [line.split("\r")[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    shown = [line for line in shown if line]
    begin = max((n for n, line in enumerate(shown) if line.startswith(_TRACEBACK)), default=len(shown))
    while begin and any(line in _CHAINED for line in shown[max(0, begin - 2) : begin]):
        begin = max((n for n, line in enumerate(shown[: begin - 1]) if line.startswith(_TRACEBACK)), default=0)
    reason = next((line for line in shown[begin:] if _ERROR.match(line)), "")
    return f": {reason}" if reason else "", "\n".join(f"    {line}" for line in shown[-lines:])
