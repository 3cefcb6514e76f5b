"""From the values in label files to classes and to overlapping regions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, Invertd

from scripts.data.label_maps import LabelsToRegionsd, MapKnownLabelsd

AFFINE = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
HEART = {"orig_labels": [500, 205, 600, 420, 421, 550, 820, 850], "target_labels": [1, 2, 3, 4, 4, 5, 6, 7]}
TUMOUR = [[2, 3], [1, 2, 3], [3]]


def volume(*values: float) -> MetaTensor:
    """1 x 1 x 1 x n, as loaded."""
    label = torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)
    return MetaTensor(label, affine=AFFINE, meta={"filename_or_obj": "labels/a.nii.gz"})


def flat(label: Any) -> list[float]:
    return torch.as_tensor(label).flatten().tolist()


class TestMapKnownLabels:
    def test_values_become_the_numbers_of_the_classes(self) -> None:
        mapped = MapKnownLabelsd("label", **HEART)({"label": volume(0, 205, 420, 421, 500, 550, 600, 820, 850)})
        assert flat(mapped["label"]) == [0, 2, 4, 4, 1, 5, 3, 6, 7]

    def test_grid_and_file_are_kept(self) -> None:
        label = MapKnownLabelsd("label", **HEART)({"label": volume(0, 205)})["label"]
        assert torch.equal(label.affine, AFFINE)
        assert label.meta["filename_or_obj"] == "labels/a.nii.gz"

    @pytest.mark.parametrize("value", [7, 422, -1, 205.5, float("nan")])
    def test_value_without_a_class_raises(self, value: float) -> None:
        with pytest.raises(ValueError, match=rf"labels/a.nii.gz: expected only .* 850, found also {value:g}"):
            MapKnownLabelsd("label", **HEART)({"label": volume(0, 205, value)})

    def test_label_and_reference_are_mapped_where_there_are_any(self) -> None:
        mapping = MapKnownLabelsd(["label", "reference"], **HEART, allow_missing_keys=True)
        assert flat(mapping({"reference": volume(600)})["reference"]) == [3]
        assert mapping({"image": 1}) == {"image": 1}
        with pytest.raises(KeyError):
            MapKnownLabelsd("label", **HEART)({"image": 1})

    def test_value_that_is_listed_twice_raises(self) -> None:
        with pytest.raises(ValueError, match=r"found \[205\] more than once"):
            MapKnownLabelsd("label", [205, 420, 205], [1, 2, 3])

    def test_input_is_left_alone(self) -> None:
        case = {"label": volume(0, 205)}
        MapKnownLabelsd("label", **HEART)(case)
        assert flat(case["label"]) == [0, 205]


class TestLabelsToRegions:
    def test_regions_overlap(self) -> None:
        regions = LabelsToRegionsd("label", TUMOUR)({"label": volume(0, 1, 2, 3)})["label"]
        assert regions.shape == (3, 1, 1, 4)
        assert [flat(region) for region in regions] == [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]

    def test_papers_choice_is_another_list(self) -> None:
        regions = LabelsToRegionsd("label", [[2, 3], [1, 2, 3], [2]])({"label": volume(0, 1, 2, 3)})["label"]
        assert flat(regions[2]) == [0, 0, 1, 0]

    def test_is_like_a_loop_over_voxels(self) -> None:
        label = np.random.default_rng(0).integers(0, 4, size=(1, 5, 4, 3))
        found = LabelsToRegionsd("label", TUMOUR)({"label": torch.as_tensor(label)})["label"]
        for index, value in np.ndenumerate(label[0]):
            assert [bool(found[(r, *index)]) for r in range(3)] == [value in region for region in TUMOUR]

    def test_type_grid_and_file_are_kept(self) -> None:
        label = LabelsToRegionsd("label", TUMOUR)({"label": volume(0, 3)})["label"]
        assert isinstance(label, MetaTensor)
        assert label.dtype == torch.float32
        assert torch.equal(label.affine, AFFINE)
        assert label.meta["filename_or_obj"] == "labels/a.nii.gz"
        array = LabelsToRegionsd("label", TUMOUR)({"label": np.zeros((1, 2, 2, 2), dtype=np.uint8)})["label"]
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.uint8

    @pytest.mark.parametrize("value", [4, -1, 0.5, float("nan")])
    def test_value_of_no_region_raises(self, value: float) -> None:
        with pytest.raises(ValueError, match=rf"a.nii.gz: expected only the values 0, 1, 2, 3, found also {value:g}"):
            LabelsToRegionsd("label", TUMOUR)({"label": volume(0, 1, value)})

    def test_values_outside_all_regions_can_be_allowed(self) -> None:
        regions = LabelsToRegionsd("label", [[2]], outside=[1, 4])({"label": volume(0, 1, 2, 4)})["label"]
        assert flat(regions) == [0, 0, 1, 0]

    def test_label_of_several_channels_raises(self) -> None:
        with pytest.raises(ValueError, match="expected one channel of labels to make regions of, found 3"):
            LabelsToRegionsd("label", TUMOUR)({"label": torch.zeros(3, 2, 2, 2)})

    def test_missing_label_is_no_matter_where_it_may_be_missing(self) -> None:
        assert LabelsToRegionsd("label", TUMOUR, allow_missing_keys=True)({"image": 1}) == {"image": 1}

    @pytest.mark.parametrize(
        ("regions", "message"),
        [
            ([], "expected regions of one label or more"),
            ([[1], []], "expected regions of one label or more"),
            ([[0, 1]], "expected no background"),
            ([[1, 1]], "expected every label once"),
        ],
    )
    def test_regions_that_are_none_raise(self, regions: list[list[int]], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            LabelsToRegionsd("label", regions)

    def test_prediction_can_be_turned_back_past_it(self) -> None:
        """What is inverted is the image's history, in which the label has no part."""
        steps = Compose([LabelsToRegionsd("label", TUMOUR), Flipd(["image", "label"], spatial_axis=2)])
        case = steps({"image": volume(1, 2, 3, 4), "label": volume(0, 1, 2, 3)})
        case["pred"] = case["image"].clone()
        assert flat(case["pred"]) == [4, 3, 2, 1]
        assert flat(Invertd("pred", steps, orig_keys="image")(case)["pred"]) == [1, 2, 3, 4]
