"""Labels of one data set among the classes of several."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from scripts.data.partial_labels import LabelsAmongd

ALL = ["liver", "spleen", "aorta", "left kidney"]


def label(*values, channels=1):
    return MetaTensor(torch.tensor(values, dtype=torch.uint8).reshape(channels, -1, 1, 1), meta={"spatial_shape": [1]})


def test_labels_get_their_numbers_among_all_classes():
    case = LabelsAmongd("label", ["aorta", "Liver"], ALL)({"label": label(0, 1, 2, 1)})
    assert case["label"].flatten().tolist() == [0, 3, 1, 3]
    assert case["labelled"].tolist() == [True, False, True, False]
    assert case["label"].meta["spatial_shape"] == [1]


def test_classes_that_are_not_labelled_are_dropped():
    case = LabelsAmongd("label", ["aorta", "liver"], ALL, ["liver"])({"label": label(0, 1, 2, 1)})
    assert case["label"].flatten().tolist() == [0, 0, 1, 0]
    assert case["labelled"].tolist() == [True, False, False, False]


def test_regions_get_their_places():
    regions = label(1, 0, 1, 1, channels=2)
    case = LabelsAmongd("label", ["aorta", "liver"], ALL, softmax=False)({"label": regions})
    assert case["label"].flatten(1).tolist() == [[1, 1], [0, 0], [1, 0], [0, 0]]
    assert isinstance(case["label"], MetaTensor)


def test_class_of_no_data_set_raises():
    with pytest.raises(ValueError, match="'colon' is none of the classes liver, spleen"):
        LabelsAmongd("label", ["colon"], ALL)
    with pytest.raises(ValueError, match="'spleen' is none of the classes aorta, liver"):
        LabelsAmongd("label", ["aorta", "liver"], ALL, ["spleen"])


def test_no_labelled_class_raises():
    with pytest.raises(ValueError, match="`labels` names none of the classes aorta"):
        LabelsAmongd("label", ["aorta"], ALL, [])
