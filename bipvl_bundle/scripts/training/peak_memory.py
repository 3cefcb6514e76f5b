"""The memory that a run has taken so far."""

from __future__ import annotations

import torch

from scripts.data.memory import resident_memory


def peak_memory() -> dict[str, int | str] | None:
    """Return the largest memory of this run so far as ``{"device", "bytes"}``; None where the system does not tell.

    On a GPU it is what PyTorch's allocator had in use; else the whole process's, with the cases that it keeps.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        used = {number: torch.cuda.max_memory_allocated(number) for number in range(torch.cuda.device_count())}
        number = max(used, key=lambda n: used[n])
        if used[number]:
            return {"device": torch.cuda.get_device_name(number), "bytes": used[number]}
    try:
        return {"device": "cpu", "bytes": resident_memory("VmHWM")}
    except OSError:
        return None
