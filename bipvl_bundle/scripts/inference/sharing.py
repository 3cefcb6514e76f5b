"""Cases dealt out to several processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch.distributed as dist
from monai.data import Dataset, DistributedSampler

from scripts.data.cases import Item


def same_cases(items: Sequence[Item]) -> list[Item]:
    """Return the cases that the first of several processes lists, in all of them.

    Masks that it has made already would be missing in the list of one that is late, and cases would fall to nobody.
    """
    listed: list[list[Item]] = [list(items)]
    dist.broadcast_object_list(listed, src=0)
    return listed[0]


def each_once(dataset: Dataset) -> DistributedSampler:
    """Return a sampler that gives each case to one process, and to none a second one; some may get none."""
    return DistributedSampler(dataset, even_divisible=False, shuffle=False)
