"""Memory of this machine and of this process, and the refusal of volumes that it cannot hold."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from scripts.messages.phrases import byte_size

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much memory a container or a job may take."""
STATUS = Path("/proc/self/status")
"""Where Linux says how much memory this process holds."""


@cache
def machine_memory() -> int | None:
    """Return the bytes of memory that this machine, container or job has; None where the system does not tell."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        found = []
    for limit in map(Path, LIMITS):
        try:
            found.append(int(limit.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return min(found, default=None)


def resident_memory(kind: str) -> int:
    """Return the resident memory of this process in bytes, now (VmRSS) or at its peak (VmHWM); Linux alone tells it.

    Raises:
        OSError: this system does not tell.
    """
    line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(f"{kind}:"))
    return int(line.split()[1]) * 1024


def require_memory(size: float, what: str, advice: str) -> None:
    """Raise an error if something would take more than the memory of this machine.

    Args:
        size: bytes.
        what: names it and its file.
        advice: what to do.

    Raises:
        ValueError: it would.
    """
    there = machine_memory()
    if there is not None and size > there:
        raise ValueError(f"{what} takes {byte_size(size)}; this machine has {byte_size(there)} of memory. {advice}")
