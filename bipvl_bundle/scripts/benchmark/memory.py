"""Peak memory of one task of one network, measured in a process of its own."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from scripts.benchmark.inputs import BUNDLE
from scripts.benchmark.setup import PLAIN, Setup
from scripts.benchmark.tasks import forward, training_step
from scripts.benchmark.timing import Stopwatch
from scripts.data.memory import STATUS, resident_memory

TASKS = {"forward": forward, "training step": training_step}
RUNS = 2  # the optimiser's states are there from the second step on


def peak_memory(setup: Setup, network: str, task: str) -> int:
    """Return the peak memory in bytes of a network and two runs of a task, measured in a fresh process.

    On a GPU it is what PyTorch's allocator had in use. On a CPU it is the growth of the process's resident memory
    after all imports: weights, gradients, optimiser states, activations, scratch memory, and what the C library keeps.

    Args:
        setup: the benchmark setup
        network: name of the network
        task: a key of ``TASKS``

    Raises:
        RuntimeError: the process failed, for instance out of memory; its last lines are quoted.
        NotImplementedError: resident memory is only read on Linux.
    """
    if not setup.device.startswith("cuda") and not STATUS.exists():
        raise NotImplementedError("The peak of a process's memory is read from /proc, which only Linux has.")
    order = json.dumps({"setup": asdict(setup), "network": network, "task": task})
    command = [sys.executable, "-W", "ignore", "-m", "scripts.benchmark.memory", order]
    done = subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, check=False)
    if done.returncode:
        ending = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise RuntimeError(
            f"The memory of a {task} of the {network} could not be measured; its process ended with {ending}: "
            f"{' '.join(done.stderr.split()[-40:])}"
        )
    return int(done.stdout.split()[-1])


def measure(setup: Setup, network: str, task: str) -> int:
    """Measure the peak memory in the current process; `peak_memory` starts a process that calls this."""
    setup.prepare()
    gc.collect()
    on_gpu = setup.device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(setup.device)
    else:
        forget_peak()
    baseline = 0 if on_gpu else resident_memory("VmRSS")
    backbone = setup.backbone()
    run = TASKS[task](setup, backbone if network == PLAIN else setup.guided(backbone))
    for _ in range(RUNS):
        run(Stopwatch(setup.device))
    return torch.cuda.max_memory_allocated(setup.device) if on_gpu else resident_memory("VmHWM") - baseline


def forget_peak() -> None:
    """Reset the kernel's record of this process's peak memory."""
    with contextlib.suppress(OSError):  # some containers forbid it; imports peak far below any network
        Path("/proc/self/clear_refs").write_text("5")


def _main() -> None:
    order = json.loads(sys.argv[1])
    setup = Setup(**{**order["setup"], "stage_layers": tuple(order["setup"]["stage_layers"])})
    print(measure(setup, order["network"], order["task"]), flush=True)
    os._exit(0)  # without a word of what threads say at the end


if __name__ == "__main__":
    _main()
