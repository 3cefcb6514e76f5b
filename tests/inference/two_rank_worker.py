"""One of two ranks that evaluate cases between them, some of which fail; started by test_failures.py."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.distributed as dist
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from torch import nn

from scripts.inference.failures import SomeCasesFailed, run_cases
from scripts.metrics import SegmentationMetricsHandler
from scripts.training.distributed import validation_sampler


def main(rank: int, store: str, folder: str, failing: list[int], count: int) -> int:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)

    def load(item: dict[str, Any]) -> dict[str, Any]:
        if item["number"] in failing:
            raise EOFError(f"case {item['number']} is cut off")
        volume = torch.ones(1, 4, 4, 4)
        return {"image": volume, "label": volume, "case": item["case"]}

    dataset = Dataset([{"image": f"c{n}.nii.gz", "case": f"c{n}", "number": n} for n in range(count)], load)
    metric = SegmentationMetricsHandler(["liver"], surface=False, output_dir=folder)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=1, sampler=validation_sampler(dataset)),
        network=nn.Identity(),
        inferer=SimpleInferer(),
        key_val_metric={"val_mean_dice": metric},
    )
    try:
        run_cases(evaluator, folder, keep=metric)
    except SomeCasesFailed as error:
        print(error)
        return 1
    finally:
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), int(sys.argv[5])))
