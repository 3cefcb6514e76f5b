"""Patches are centred on each class, or region, and the background, equally often."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import Compose, RandCropByLabelClassesd

from scripts.data.patches import ClassIndicesd

SHAPE = (9, 5, 5)


def place(patch: Any) -> int:
    """Where a patch of one voxel was taken: the image counts its voxels."""
    return int(patch["image"].item())


def case(label: torch.Tensor) -> dict[str, Any]:
    return {"image": torch.arange(9.0 * 5 * 5).reshape(1, *SHAPE), "label": label}


def regions() -> torch.Tensor:
    """The second lies within the first, which is the half of the volume with the lower numbers."""
    label = torch.zeros(2, *SHAPE)
    label[0, :4] = 1
    label[1, 1, 1, 1] = 1
    return label


def classes() -> torch.Tensor:
    label = torch.zeros(1, *SHAPE)
    label[0, :4] = 1
    label[0, 1, 1, 1] = 2
    return label


def cropper(samples: int, num_classes: int = 2, most: int | None = None, **arguments: Any) -> Compose:
    """As in train.yaml."""
    indices = ClassIndicesd("label", num_classes=num_classes, max_samples_per_class=most)
    keys = {"keys": ["image", "label"], "label_key": "label", "indices_key": "label_cls_indices", "warn": False}
    crop = RandCropByLabelClassesd(
        **{**keys, "spatial_size": [1, 1, 1], "num_samples": samples, "num_classes": num_classes, **arguments}
    )
    return Compose([indices, crop]).set_random_state(0)


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
    assert set(patch) == {"image", "label"}, "the batches hold no lists of voxels"


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
    arguments = {"keys": ["image", "label"], "label_key": "label", "spatial_size": [1, 1, 1], "num_classes": 3}
    monai = Compose([RandCropByLabelClassesd(**arguments, num_samples=60)]).set_random_state(0)
    mine = cropper(60, num_classes=3)
    places = [[place(patch) for patch in crop(case(classes()))] for crop in (monai, mine)]
    assert Counter(places[0]).keys() <= set(range(9 * 25))
    assert min(Counter("b" if spot >= 100 else "2" if spot == 31 else "1" for spot in places[1]).values()) > 10


class TestClassIndices:
    def test_are_those_of_each_class_and_the_label_is_left_alone(self) -> None:
        label = MetaTensor(classes())
        found = ClassIndicesd("label", num_classes=3)({"label": label, "image": 0})
        assert found["label"] is label
        expected = [torch.arange(100, 225), torch.tensor([i for i in range(100) if i != 31]), torch.tensor([31])]
        for indices, wanted in zip(found["label_cls_indices"], expected, strict=True):
            assert torch.equal(torch.as_tensor(indices), wanted)

    def test_of_regions_begin_with_the_background(self) -> None:
        found = ClassIndicesd("label", num_classes=2)({"label": regions()})["label_cls_indices"]
        assert [np.asarray(indices).tolist() for indices in found] == [list(range(100, 225)), list(range(100)), [31]]

    def test_of_a_large_class_are_a_bounded_number_from_end_to_end(self) -> None:
        found = ClassIndicesd("label", num_classes=3, max_samples_per_class=10)({"label": classes()})
        background, first, second = (np.asarray(indices) for indices in found["label_cls_indices"])
        assert (len(background), len(first), len(second)) == (10, 10, 1)
        assert (background[0], background[-1]) == (100, 224)
        assert len(set(np.diff(background))) <= 2

    def test_are_kept_in_the_cache_so_that_no_patch_searches_the_label(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = CacheDataset([case(classes())], cropper(2, num_classes=3), progress=False)
        monkeypatch.setattr("monai.transforms.croppad.array.map_classes_to_indices", pytest.fail)
        monkeypatch.setattr("monai.transforms.utility.array.map_classes_to_indices", pytest.fail)
        centres = {place(patch) for _ in range(20) for patch in data[0]}
        assert len(centres) > 10
        assert 31 in centres
