"""Benchmark tasks, as the bundle's configurations do them: forward, training step, whole case, scores, loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import LoadImaged, SaveImaged
from torch import nn

from scripts.benchmark.inputs import SPACING, draw_balls
from scripts.benchmark.setup import Setup
from scripts.benchmark.timing import Stopwatch, Task
from scripts.data.native_labels import NativeLabelsd
from scripts.metrics import SegmentationMetricsHandler

PART_OF: dict[type, str] = {NativeLabelsd: "labels", SaveImaged: "save"}
AFTER = tuple(PART_OF.values())
"""The parts of a case after the network; stitching belongs to ``infer``."""


def forward(setup: Setup, network: nn.Module) -> Task:
    """Segment one batch in evaluation, without gradients."""
    image, _ = setup.patch()

    @torch.no_grad()
    def run(watch: Stopwatch) -> None:
        network.eval()
        with setup.autocast():
            network(image)

    return run


def training_step(setup: Setup, network: nn.Module) -> Task:
    """One step with loss and optimiser of train.yaml; parts: forward, loss, backward, optimiser.

    The gradients are gone at the end, so that those of two networks are not there together.
    """
    image, label = setup.patch()
    parser = setup.configuration("train.yaml", network=network)
    loss, optimizer = parser.get_parsed_content("loss"), parser.get_parsed_content("optimizer")

    def run(watch: Stopwatch) -> None:
        network.train()
        with setup.autocast():
            with watch.part("forward"):
                output = network(image)
            with watch.part("loss"):
                value = loss(output, label)
        with watch.part("backward"):
            value.backward()
        with watch.part("optimiser"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def whole_case(setup: Setup, network: nn.Module, image: str, output: Path) -> Task:
    """Task that segments one volume through inference.yaml; parts: load, preprocess, infer, labels, save."""
    no_file = {"_target_": "Identityd", "keys": "image"}  # the values of a model's training are read from its file
    changes = {"dataset_dir": image, "predictions_dir": str(output), "compare_values": no_file}
    parser = setup.configuration("inference.yaml", **changes)
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
            with watch.part(next((part for kind, part in PART_OF.items() if isinstance(transform, kind)), "labels")):
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
