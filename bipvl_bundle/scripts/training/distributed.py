"""Training and evaluation in several processes, one per device."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from monai.data import DistributedSampler
from torch import nn

BATCH_NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The environment by which torchrun tells a process which one it is, and where the others are."""


def local_device() -> torch.device:
    """Return the device of this process: GPU n for process n of a machine, or the CPU if there is no GPU.

    Raises:
        RuntimeError: the process was not started by torchrun, or there are more processes than GPUs.
    """
    _require_torchrun()
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= count:
        raise RuntimeError(
            f"Process {number + 1} of this machine has no GPU of its own: there are {count}. Start torchrun with "
            f"`--nproc_per_node={count}`, or set `device` to cpu."
        )
    return torch.device("cuda", number)


def join_processes(device: torch.device | str, *, timeout_minutes: float = 60.0) -> None:
    """Join the process group of torchrun: NCCL on GPUs, gloo on the CPU.

    Only the first process logs its progress; the others log warnings and errors. Does nothing if the process belongs to
    a group already.

    Args:
        device: device of this process.
        timeout_minutes: how long the processes wait for one another, for instance while the first prepares the data.

    Raises:
        RuntimeError: the process was not started by torchrun.
    """
    if dist.is_initialized():
        return
    _require_torchrun()
    os.environ.pop("SLURM_JOB_ID", None)  # by which Ignite takes Slurm's tasks, torchrun's parents, for the processes
    device = torch.device(device)
    options: dict[str, Any] = {"backend": "gloo", "timeout": timedelta(minutes=timeout_minutes)}
    if device.type == "cuda":
        torch.cuda.set_device(device)
        options |= {"backend": "nccl", "device_id": device}
    dist.init_process_group(**options)
    if dist.get_rank() > 0:
        logging.disable(logging.INFO)


def with_shared_statistics(network: nn.Module) -> nn.Module:
    """Replace batch norms by SyncBatchNorm, which takes its statistics over all processes.

    Networks without batch norm, which most are here, are handed on as they are. Names and values of the weights stay.

    Raises:
        RuntimeError: there is a batch norm, and no GPU, which PyTorch's SyncBatchNorm needs.
    """
    norms = [name for name, module in network.named_modules() if isinstance(module, BATCH_NORMS)]
    if norms and any(parameter.device.type == "cpu" for parameter in network.parameters()):
        raise RuntimeError(
            f"The network has {len(norms)} batch norms ('{norms[0]}' the first), and PyTorch shares their statistics "
            "between processes on GPUs only: train it in one process, or with instance norm (`backbone_norm`)."
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def validation_sampler(dataset: Any) -> DistributedSampler:
    """Return a sampler that gives each case to one process.

    Where there are fewer cases than processes, some get a case that another has too, as none can go without;
    `SegmentationMetricsHandler` counts such a case once.

    Args:
        dataset: as long on every process.
    """
    return DistributedSampler(dataset, even_divisible=len(dataset) < dist.get_world_size(), shuffle=False)


def _require_torchrun() -> None:
    absent = [name for name in TORCHRUN if name not in os.environ]
    if absent:
        raise RuntimeError(
            f"The multi-GPU overlays run under torchrun, which sets {', '.join(TORCHRUN)}; found no "
            f"{', '.join(absent)}. Start `torchrun --nproc_per_node=GPUS -m monai.bundle run ...`, or leave the "
            "overlay out to use one device."
        )
