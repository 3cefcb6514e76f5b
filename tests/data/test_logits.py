"""Logits to labels on their own grid, and logits that are no numbers."""

from __future__ import annotations

import math

import pytest
import torch
from monai.data import MetaTensor

from scripts.data.logits import PROBABILITIES, ToLabelsd, check_logits, label_type

LOGITS = torch.tensor([[2.0, -1.0, 0.1], [1.0, -0.5, 0.3], [-3.0, 0.7, 0.2]]).reshape(3, 3, 1, 1)


class TestToLabelsd:
    def test_the_largest_logit_names_the_class(self) -> None:
        found = ToLabelsd("pred")({"pred": MetaTensor(LOGITS), "image": "a.nii"})
        assert found["pred"].flatten().tolist() == [0, 2, 1]
        assert found["pred"].shape == (1, 3, 1, 1)
        assert found["image"] == "a.nii"

    def test_each_region_is_where_its_logit_is_positive(self) -> None:
        found = ToLabelsd("pred", softmax=False)({"pred": LOGITS})["pred"]
        assert found.reshape(3, 3).tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 1]]

    def test_what_is_marked_as_probabilities_passes(self) -> None:
        sample = MetaTensor(LOGITS, meta={PROBABILITIES: True})
        assert ToLabelsd("pred")({"pred": sample})["pred"] is sample

    def test_logits_that_are_no_numbers_raise_with_the_case(self) -> None:
        logits = MetaTensor(torch.full((3, 2, 2, 2), math.nan), meta={"filename_or_obj": "scans/p7.nii.gz"})
        with pytest.raises(ValueError, match=r"scans/p7.nii.gz: expected finite logits .* found 24 .*channels 0, 1, 2"):
            ToLabelsd("pred")({"pred": logits})


class TestCheckLogits:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_one_bad_voxel_is_told_with_its_channel(self, value: float) -> None:
        logits = torch.zeros(4, 3, 3, 3)
        logits[2, 1, 1, 1] = value
        with pytest.raises(
            ValueError, match=r"case 'a': expected finite logits .* found 1 .*\(channels 2\).*amp False"
        ):
            check_logits(logits, "case 'a'")

    def test_large_ones_pass(self) -> None:
        check_logits(torch.full((2, 3, 3, 3), 6e4, dtype=torch.float16), "a")


@pytest.mark.parametrize(
    ("channels", "kind"), [(2, torch.uint8), (256, torch.uint8), (257, torch.int16), (40000, torch.int32)]
)
def test_label_type_counts_every_class(channels: int, kind: torch.dtype) -> None:
    assert label_type(channels) == kind
    assert torch.tensor(channels - 1).to(kind) == channels - 1
