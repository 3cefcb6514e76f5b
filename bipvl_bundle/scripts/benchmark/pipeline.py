"""Benchmark tasks around the network: a case from file to file, its metrics, and loading of training patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Invertd, LoadImaged, SaveImaged
from torch import nn

from scripts.benchmark.setup import Setup
from scripts.benchmark.timing import Stopwatch, Task
from scripts.benchmark.volumes import SPACING, draw_balls
from scripts.metrics import SegmentationMetricsHandler

PART_OF: dict[type, str] = {Invertd: "invert", SaveImaged: "save"}
AFTER = ("labels", *PART_OF.values())
"""The parts of a case after the network; stitching belongs to ``infer``."""


def whole_case(setup: Setup, network: nn.Module, image: str, output: Path) -> Task:
    """Task that segments one volume through inference.yaml; parts: load, preprocess, infer, labels, invert, save."""
    parser = setup.configuration("inference.yaml", dataset_dir=image, predictions_dir=str(output))
    before, after = (
        parser.get_parsed_content(name).flatten().transforms for name in ("preprocessing", "postprocessing")
    )
    inferer = parser.get_parsed_content("inferer")

    @torch.no_grad()
    def run(watch: Stopwatch) -> None:
        network.eval()
        item: Any = {"image": image}
        for transform in before:
            with watch.part("load" if isinstance(transform, LoadImaged) else "preprocess"):
                item = transform(item)
        with watch.part("infer"), setup.autocast():
            batch = list_data_collate([item])
            batch["pred"] = inferer(batch["image"].to(setup.device), network)
            (item,) = decollate_batch(batch)
        for transform in after:
            with watch.part(PART_OF.get(type(transform), "labels")):
                item = transform(item)

    return run


def scoring(setup: Setup, voxels: tuple[int, int, int]) -> Task:
    """Task that computes DSC, HD95 and NSD of one case with all classes; the prediction is shifted by a voxel."""
    affine = torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))
    label = torch.as_tensor(draw_balls(voxels, setup.classes))[None]
    names = setup.configuration("train.yaml").get_parsed_content("class_names")
    case = {"label": MetaTensor(label, affine=affine), "pred": MetaTensor(label.roll(1, dims=1), affine=affine)}

    def run(watch: Stopwatch) -> None:
        SegmentationMetricsHandler(names).update({**case, "case": "benchmark"})

    return run


def loading(setup: Setup, item: dict[str, str]) -> Task:
    """Task that loads one training patch of a cached case through the random transforms of train.yaml."""
    changes = {"train#dataset#data": [item], "train#dataset#progress": False, "cache_rate": 1.0}
    loader = setup.configuration("train.yaml", **changes).get_parsed_content("train#dataloader")

    def run(watch: Stopwatch) -> None:
        for _ in loader:
            pass

    return run
