from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer

from scripts.data import memory
from scripts.inference.averaging import AveragingInferer
from scripts.inference.room import require_room

MIB = 2**20


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 100 * MIB)


def image(edge: int) -> MetaTensor:
    return MetaTensor(torch.zeros(1, 1, edge, edge, edge), meta={"filename_or_obj": ["large.nii.gz"]})


def test_logits_of_all_classes_are_counted() -> None:
    require_room(image(64), 20)  # 21 MiB
    with pytest.raises(
        ValueError, match=r"^large.nii.gz: 110 logits for each of its 64 x 64 x 64 voxels takes 117 MB; .* has 105 MB"
    ):
        require_room(image(64), 110)


def test_sum_of_probabilities_is_counted() -> None:
    require_room(image(64), 40)  # 42 MiB
    with pytest.raises(ValueError, match=r"and the probabilities of 4 looks takes .*leave out mirror_axes"):
        require_room(image(64), 40, looks=4)


def test_logits_of_a_window_are_counted() -> None:
    require_room(image(32), 20, roi_size=(64, 64, 64))
    with pytest.raises(ValueError, match="large"):
        require_room(image(32), 20, roi_size=(64, 64, 64), windows=4)


@pytest.mark.parametrize(("options", "classes"), [({"out_channels": 200}, None), ({}, 200)])
def test_no_window_is_begun(options: dict[str, Any], classes: int | None) -> None:
    class Network(torch.nn.Module):
        concepts = classes and SimpleNamespace(classes=["a"] * classes)

        def forward(self, window: torch.Tensor) -> torch.Tensor:
            raise AssertionError("it was begun")

    inferer = AveragingInferer(SlidingWindowInferer((32, 32, 32)), **options)
    with pytest.raises(ValueError, match=r"20[01] logits"):
        inferer(image(64), Network())
