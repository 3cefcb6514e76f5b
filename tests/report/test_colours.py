from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from scripts.report.colours import OKABE_ITO, class_colours

# Machado et al. (2009), severity 1: as the deficiency is simulated on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
# Ottosson (2020), OKLab: Euclidean distances are close to those perceived.
TO_CONES = [[0.412221, 0.536333, 0.051446], [0.211903, 0.6807, 0.107397], [0.088302, 0.281719, 0.629979]]
TO_LAB = [[0.210454, 0.793618, -0.004072], [1.977998, -2.428592, 0.450594], [0.025904, 0.782772, -0.808676]]


def lab(colours: list[str], vision: str) -> NDArray[np.float64]:
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.clip(linear @ np.transpose(VISIONS[vision]), 0, 1) @ np.transpose(TO_CONES)
    return np.cbrt(cones) @ np.transpose(TO_LAB)


def nearest(colours: list[str], vision: str) -> float:
    """The smallest distance of two of them."""
    seen = lab(colours, vision)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    return float(distances[np.triu_indices(len(colours), 1)].min())


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize(("count", "apart"), [(8, 0.075), (16, 0.075), (32, 0.045)])
def test_classes_are_told_apart_by_every_vision(count: int, apart: float, vision: str) -> None:
    assert nearest(class_colours(count), vision) > apart


def test_first_colours_are_those_of_okabe_and_ito_and_more_classes_keep_them() -> None:
    assert class_colours(7) == list(OKABE_ITO)
    assert class_colours(20)[:8] == class_colours(8)


@pytest.mark.parametrize("count", [0, 1, 33, 120])
def test_no_colour_comes_twice(count: int) -> None:
    assert len(set(class_colours(count))) == count
