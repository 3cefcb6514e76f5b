"""Patches are centred on each class, or region, and the background, equally often."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandCropByLabelClassesd

from scripts.data.patches import RandCropByClassesd

SHAPE = (9, 5, 5)


def place(patch: dict[str, torch.Tensor]) -> int:
    """Where a patch of one voxel was taken: the image counts its voxels."""
    return int(patch["image"].item())


def case(label: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"image": torch.arange(9.0 * 5 * 5).reshape(1, *SHAPE), "label": label}


def regions() -> torch.Tensor:
    """The second lies within the first, which is the half of the volume with the lower numbers."""
    label = torch.zeros(2, *SHAPE)
    label[0, :4] = 1
    label[1, 1, 1, 1] = 1
    return label


def cropper(samples: int, **arguments: object) -> RandCropByClassesd:
    keys = {"keys": ["image", "label"], "label_key": "label", "spatial_size": [1, 1, 1], "warn": False}
    crop = RandCropByClassesd(**{**keys, "num_samples": samples, "num_classes": 2, **arguments})
    crop.set_random_state(0)
    return crop


@pytest.mark.parametrize("wrap", [torch.clone, MetaTensor])
def test_background_and_each_region_are_equally_often_the_centre(wrap: type) -> None:
    places = [place(patch) for patch in cropper(150)(case(wrap(regions())))]
    second = sum(spot == 31 for spot in places)  # 1 x 25 + 1 x 5 + 1
    background = sum(spot >= 100 for spot in places)
    assert min(second, background, 150 - second - background) > 35
    assert len({spot for spot in places if spot >= 100}) > 25, "all over the background"


def test_patches_keep_every_region_and_the_history() -> None:
    patch = cropper(1, spatial_size=[3, 3, 3])(case(MetaTensor(regions())))[0]
    assert patch["label"].shape == (2, 3, 3, 3)
    assert patch["image"].shape == (1, 3, 3, 3)
    assert isinstance(patch["label"], MetaTensor)


def test_case_without_any_region_is_all_background() -> None:
    patches = cropper(50)(case(torch.zeros(2, *SHAPE)))
    assert len({place(patch) for patch in patches}) > 20


def test_ratios_count_the_background() -> None:
    places = [place(patch) for patch in cropper(50, ratios=[1, 0, 0])(case(regions()))]
    assert min(places) >= 100


def test_single_region_is_a_region() -> None:
    places = [place(patch) for patch in cropper(60, num_classes=1)(case(regions()[:1]))]
    assert 18 < sum(spot < 100 for spot in places) < 42


def test_label_map_of_one_channel_is_sampled_as_by_monai() -> None:
    label = torch.zeros(1, *SHAPE)
    label[0, :4] = 1
    label[0, 1, 1, 1] = 2
    arguments = {"keys": ["image", "label"], "label_key": "label", "spatial_size": [1, 1, 1], "num_classes": 3}
    monai = RandCropByLabelClassesd(**arguments, num_samples=60)
    monai.set_random_state(0)
    mine = cropper(60, num_classes=3)
    places = [[place(patch) for patch in crop(case(label))] for crop in (monai, mine)]
    assert places[0] == places[1]
    assert min(Counter("b" if spot >= 100 else "2" if spot == 31 else "1" for spot in places[0]).values()) > 10
