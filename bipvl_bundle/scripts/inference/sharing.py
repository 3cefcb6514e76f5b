"""Cases dealt out to several processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch.distributed as dist

from scripts.data.cases import Item


def same_cases(items: Sequence[Item]) -> list[Item]:
    """Return the cases that the first of several processes lists, in all of them.

    Masks that it has made already would be missing in the list of one that is late, and cases would fall to nobody.
    """
    listed: list[list[Item]] = [list(items)]
    dist.broadcast_object_list(listed, src=0)
    return listed[0]


def each_once(items: Sequence[Item]) -> Sequence[int]:
    """Return the places of this process's cases, every n-th of n processes: a sampler that gives none a second time.

    Of fewer cases than processes some get none, for which PyTorch's and MONAI's samplers have no way.
    """
    return range(dist.get_rank(), len(items), dist.get_world_size())
