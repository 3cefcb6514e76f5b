"""Benchmark of time and memory from logits to labels on the grid of a large scan.

python -m scripts.benchmark.native_labels 117 512,512,400 linear
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd
from torch import Tensor

from scripts.benchmark.inputs import TARGET
from scripts.benchmark.memory import forget_peak
from scripts.benchmark.timing import TOTAL, Stopwatch, Times
from scripts.data.memory import resident_memory
from scripts.data.native_labels import NativeLabelsd
from scripts.data.transforms import SafeSpacingd

SPACING = (0.75, 0.75, 1.0)  # mm, of a thin-slice CT


class Cost(NamedTuple):
    """Time and memory of labelling a scan."""

    times: Times
    peak: int  # bytes of resident memory beyond the logits
    classes: int  # found in the labels, with the background


def measure(classes: int, voxels: Sequence[int], mode: str) -> Cost:
    """Label a scan of so many voxels, from drawn logits on a grid of 1.5 x 1.5 x 2 mm, on the CPU.

    Args:
        classes: without the background.
        voxels: of the scan.
        mode: of `NativeLabelsd`.
    """
    affine = torch.diag(torch.tensor([-SPACING[0], -SPACING[1], SPACING[2], 1.0], dtype=torch.float64))
    image = MetaTensor(torch.zeros(1, *voxels), affine=affine, meta={"original_affine": affine})
    steps = Compose([Orientationd("image", "RAS", labels=None), SafeSpacingd("image", TARGET)])
    case = dict(steps({"image": image}))
    del image
    case["pred"] = draw_logits(classes, case["image"].shape[1:])
    forget_peak()
    before, watch = resident_memory("VmRSS"), Stopwatch()
    with watch.part(TOTAL):
        labels = NativeLabelsd("pred", steps, mode=mode)(case)["pred"]
    return Cost(watch.parts[TOTAL], resident_memory("VmHWM") - before, len(torch.bincount(labels.flatten()).nonzero()))


def draw_logits(classes: int, grid: Sequence[int]) -> Tensor:
    """Draw logits that fall off from the middle of an ellipsoid for each class; N + 1 channels, background first."""
    generator = np.random.default_rng(0)
    logits = torch.full((classes + 1, *grid), 3.0)
    axes = [torch.arange(edge, dtype=torch.float32) / edge for edge in grid]
    for channel in logits[1:]:
        parts = [((axis - generator.uniform(0.1, 0.9)) / generator.uniform(0.03, 0.12)) ** 2 for axis in axes]
        channel.copy_(8 - 5 * (parts[0][:, None, None] + parts[1][:, None] + parts[2]).sqrt()).clamp_(min=-8)
    return logits


if __name__ == "__main__":
    cost = measure(int(sys.argv[1]), [int(edge) for edge in sys.argv[2].split(",")], sys.argv[3])
    print(
        f"{cost.classes} labels, {cost.times.cpu:.1f} CPU s, {cost.times.wall:.1f} s, "
        f"{cost.peak / 1e9:.2f} GB beyond the logits"
    )
