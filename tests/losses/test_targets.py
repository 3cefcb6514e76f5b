from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scripts.losses.targets import asked_target, check_target, present_classes
from scripts.networks.outputs import AskedClasses

LOGITS = torch.zeros(2, 3, 4, 4, 4)


def labels(**values):
    target = torch.zeros(2, 1, 4, 4, 4)
    target[:, :, 0] = 1
    target[:, :, 1] = 2
    if values:
        target[0, 0, 3, 3, 3] = values["corner"]
    return target


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.int32, torch.float32])
def test_fitting_targets_pass(dtype):
    check_target(LOGITS, labels().to(dtype))
    check_target(LOGITS, torch.ones(2, 3, 4, 4, 4).to(dtype), softmax=False)


def test_boolean_masks_pass():
    check_target(LOGITS, torch.ones(2, 3, 4, 4, 4, dtype=torch.bool), softmax=False)


@pytest.mark.parametrize(
    ("value", "named"), [(3.0, r"\[3.0\]"), (-1.0, r"\[-1.0\]"), (1.5, r"\[1.5\]"), (torch.nan, r"\[nan\]")]
)
def test_wrong_label_is_named_with_the_number_of_channels(value, named):
    with pytest.raises(ValueError, match=rf"the values {named}.*integers from 0 to 2 for 3 output channels"):
        check_target(LOGITS, labels(corner=value))


def test_wrong_integer_label_is_named():
    with pytest.raises(ValueError, match=r"the values \[7\]"):
        check_target(LOGITS, labels(corner=7).to(torch.uint8))


def test_masks_must_be_binary():
    target = torch.zeros(2, 3, 4, 4, 4)
    target[0, 0, 0, 0, 0] = 2
    with pytest.raises(ValueError, match=r"the values \[2.0\]; it must hold 0 or 1"):
        check_target(LOGITS, target, softmax=False)


def test_wrong_shape_names_both():
    with pytest.raises(ValueError, match=r"shape \(2, 1, 4, 4, 4\) for logits.*is \(2, 1, 4, 4, 5\)"):
        check_target(LOGITS, torch.zeros(2, 1, 4, 4, 5))
    with pytest.raises(ValueError, match=r"one label map.*is \(2, 3, 4, 4, 4\)"):
        check_target(LOGITS, torch.zeros(2, 3, 4, 4, 4))
    with pytest.raises(ValueError, match=r"one binary mask per class of shape \(2, 3, 4, 4, 4\)"):
        check_target(LOGITS, labels(), softmax=False)


def test_single_channel_needs_overlapping_regions():
    with pytest.raises(ValueError, match="at least 2 output channels"):
        check_target(LOGITS[:, :1], torch.zeros(2, 1, 4, 4, 4))
    check_target(LOGITS[:, :1], torch.zeros(2, 1, 4, 4, 4), softmax=False)


def test_present_classes_of_label_maps():
    target = torch.zeros(3, 1, 2, 2, 2)
    target[0, 0, 0, 0, 0] = 3
    target[1, 0, 0] = 1
    target[1, 0, 1] = 2
    expected = [[False, False, True], [True, True, False], [False, False, False]]
    assert present_classes(target, channels=4).tolist() == expected


def test_present_classes_of_binary_masks():
    target = torch.zeros(2, 2, 2, 2, 2)
    target[0, 1, 1, 1, 1] = 1
    target[1, :, 0] = 1
    assert present_classes(target, channels=2, softmax=False).tolist() == [[False, True], [True, True]]


class TestAskedTarget:
    @staticmethod
    def output(make_output, classes, *, num_classes=3, mirrored=False, softmax=True):
        output = make_output(classes=len(classes), softmax=softmax)
        return replace(output, question=AskedClasses(classes, num_classes, mirrored))

    def test_without_a_question_is_the_target_itself(self, make_output, make_target):
        output = make_output()
        target = make_target(output)
        assert asked_target(output, target) is target

    def test_numbers_the_classes_as_they_were_asked_for_and_leaves_the_others_to_the_background(self, make_output):
        target = torch.zeros(2, 1, 4, 4, 4)
        target[:, :, 0], target[:, :, 1], target[:, :, 2] = 1, 2, 3
        found = asked_target(self.output(make_output, (2, 0)), target)
        assert found[0, 0, :, 0, 0].tolist() == [2, 0, 1, 0]
        assert found.dtype == target.dtype

    def test_regions_are_chosen_and_ordered(self, make_output):
        target = torch.zeros(2, 3, 4, 4, 4)
        target[:, 1] = 1
        found = asked_target(self.output(make_output, (2, 1), softmax=False), target, softmax=False)
        assert found.flatten(2).amax(dim=-1)[0].tolist() == [0, 1]

    def test_mirrored_from_left_to_right_with_the_image(self, make_output):
        target = torch.zeros(2, 1, 4, 4, 4)
        target[:, :, 0] = 1
        found = asked_target(self.output(make_output, (0, 1, 2), mirrored=True), target)
        assert found[0, 0, :, 0, 0].tolist() == [0, 0, 0, 1]

    def test_label_of_no_class_of_the_data_set_raises(self, make_output):
        target = torch.zeros(2, 1, 4, 4, 4)
        target[0, 0, 0, 0, 0] = 4
        with pytest.raises(ValueError, match=r"holds the values \[4\.0\]; it must hold integers from 0 to 3"):
            asked_target(self.output(make_output, (2, 0)), target)
