"""One of two ranks that score three cases between them; started by test_handler.py, prints its metrics."""

from __future__ import annotations

import json
import sys

import ignite.distributed as idist
import torch
import torch.distributed as dist
from monai.data import MetaTensor

from scripts.metrics import SegmentationMetricsHandler

# What each rank scores: the second case comes twice, as a sampler's padding does; the share is uneven.
SHARES = [["one", "two", "three"], ["two"]]
SHIFTS = {"one": 0, "two": 1, "three": 8}


def main(rank: int, store: str, output_dir: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    handler = SegmentationMetricsHandler(["cube"], output_dir=output_dir)
    for case in SHARES[rank]:
        label = torch.zeros(1, 16, 8, 8)
        label[:, 1:5, 1:5, 1:5] = 1
        pred = torch.zeros_like(label) if case == "three" else torch.roll(label, SHIFTS[case], 1)
        handler.update({"pred": MetaTensor(pred), "label": MetaTensor(label), "case": case})
    mean_dice = handler.compute()
    sys.stderr.write(json.dumps({"rank": idist.get_rank(), "mean_dice": mean_dice, **handler._scalars}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
