"""What a page says of the process that has made it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from typing import Any

import torch

from scripts.configuration.plan import versions


def run_facts(device: str | torch.device, seconds: float) -> dict[str, Any]:
    """Return the command, the time, the machine and the versions of the running process.

    Args:
        device: that it computes on.
        seconds: that it took.
    """
    now = datetime.now(timezone.utc).astimezone()
    return {
        "command": " ".join(["python", *map(_quoted, sys.orig_argv[1:])]),
        "finished": now.isoformat(sep=" ", timespec="seconds"),
        "seconds": round(seconds, 1),
        "machine": _machine(device),
        "versions": versions(),
    }


def _quoted(word: str) -> str:
    return f'"{word}"' if "'" in word and not set('"$`\\!') & set(word) else shlex.quote(word)


def _machine(device: str | torch.device) -> str:
    found = torch.device(device)
    name = torch.cuda.get_device_name(found) if found.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {name}"
