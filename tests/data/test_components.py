from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from scripts.data.components import CleanComponentsd

NAMES = ["liver", "spleen"]


@pytest.fixture
def labels() -> MetaTensor:
    """Voxels of 0.125 mL: a liver of 8 and one of 2 voxels that touch by corners, one astray; two of spleen."""
    volume = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    volume[0, :2, :2, :2] = 1
    volume[0, 2, 2, 2:4] = 1
    volume[0, 7, 7, 7] = 1
    volume[0, 5, 0, 0] = volume[0, 5, 5, 0] = 2
    return MetaTensor(volume, affine=torch.diag(torch.tensor([5.0, 5.0, 5.0, 1.0])))


def test_largest_component_stays(labels: MetaTensor) -> None:
    found = CleanComponentsd("pred", NAMES, keep_largest=["liver"])({"pred": labels.clone()})["pred"]
    assert int((found == 1).sum()) == 10
    assert found[0, 7, 7, 7] == 0
    assert int((found == 2).sum()) == 2
    torch.testing.assert_close(found.affine, labels.affine)


@pytest.mark.parametrize(("ml", "left"), [(0.1, 11), (0.2, 10), (1.3, 0)])
def test_components_below_a_volume_go(labels: MetaTensor, ml: float, left: int) -> None:
    found = CleanComponentsd("pred", NAMES, remove_smaller={"liver": ml})({"pred": labels.clone()})["pred"]
    assert int((found == 1).sum()) == left


def test_regions_are_cleaned_channel_by_channel(labels: MetaTensor) -> None:
    regions = MetaTensor(torch.cat([labels == 1, labels == 2]).to(torch.uint8), affine=labels.affine)
    found = CleanComponentsd("pred", NAMES, keep_largest=["spleen"], softmax=False)({"pred": regions})["pred"]
    assert found.flatten(1).sum(1).tolist() == [11, 1]


def test_rules_hold_for_the_classes_of_a_request(labels: MetaTensor) -> None:
    rules = CleanComponentsd("pred", NAMES, keep_largest=["liver"], remove_smaller={"spleen": 1e3})
    asked = MetaTensor((labels == 1) * 2, affine=labels.affine)  # liver alone, of two classes the second
    found = rules.for_classes(["cyst", "liver"])({"pred": asked})["pred"]
    assert int((found == 2).sum()) == 10
    assert (rules.largest, rules.smallest) == ({0}, {1: 1e3})


def test_nothing_asked_for_changes_nothing(labels: MetaTensor) -> None:
    assert torch.equal(CleanComponentsd("pred", NAMES)({"pred": labels.clone()})["pred"], labels)


def test_impossible_settings() -> None:
    with pytest.raises(ValueError, match=r"'liwer'.*`keep_largest`|`keep_largest`.*liwer"):
        CleanComponentsd("pred", NAMES, keep_largest=["liwer"])
    with pytest.raises(ValueError, match=r"volume in mL .* found \{'liver': -1\}"):
        CleanComponentsd("pred", NAMES, remove_smaller={"liver": -1})
