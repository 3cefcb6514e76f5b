from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.losses.segmentation import SegmentationLoss


def plain_segmentation(logits, target, softmax, first_dice_channel=0, eps=1e-5):
    """Equations 11 to 13 with a loop over samples, channels and voxels."""
    logits = logits.detach().double().numpy()
    batch, channels = logits.shape[:2]
    raw = logits.reshape(batch, channels, -1)
    labels = target.numpy().reshape(batch, target.shape[1], -1)
    dice, cross_entropy = [], []
    for b in range(batch):
        if softmax:
            odds = np.exp(raw[b])
            p = odds / odds.sum(axis=0)
            g = np.stack([labels[b, 0] == c for c in range(channels)]).astype(float)
            cross_entropy += [-math.log(p[int(labels[b, 0, j]), j]) for j in range(p.shape[1])]
        else:
            p = 1 / (1 + np.exp(-raw[b]))
            g = labels[b].astype(float)
            for c in range(channels):
                for j in range(p.shape[1]):
                    cross_entropy.append(-math.log(p[c, j] if g[c, j] else 1 - p[c, j]))
        for c in range(first_dice_channel, channels):
            overlap = 2 * sum(p[c, j] * g[c, j] for j in range(p.shape[1]))
            dice.append(1 - overlap / ((p[c] ** 2).sum() + (g[c] ** 2).sum() + eps))
    return np.mean(dice) + np.mean(cross_entropy)


def test_hand_computed_exclusive_case():
    # Two voxels, undecided (p = 1/2): one is background, one is foreground.
    target = torch.tensor([0.0, 1.0]).reshape(1, 1, 2, 1, 1)
    # Per class: 2 * 1/2 / (1/4 + 1/4 + 1).
    expected = (1 - 1 / 1.5) + math.log(2)
    assert SegmentationLoss()(torch.zeros(1, 2, 2, 1, 1), target).item() == pytest.approx(expected, abs=1e-5)


def test_hand_computed_overlapping_case():
    # Both regions cover voxel 0 only; the sigmoids say 1/2 everywhere.
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).reshape(1, 2, 2, 1, 1)
    expected = (1 - 1 / 1.5) + math.log(2)
    loss = SegmentationLoss(softmax=False)
    assert loss(torch.zeros(1, 2, 2, 1, 1), target).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("softmax", [True, False])
def test_equals_the_plain_loops(make_output, make_target, softmax):
    output = make_output(softmax=softmax)
    target = make_target(output, softmax)
    expected = plain_segmentation(output.logits, target, softmax)
    assert SegmentationLoss(softmax)(output.logits, target).item() == pytest.approx(expected, abs=1e-5)


def test_background_can_be_left_out_of_dice(make_output, make_target):
    output = make_output()
    target = make_target(output)
    expected = plain_segmentation(output.logits, target, softmax=True, first_dice_channel=1)
    loss = SegmentationLoss(include_background=False)
    assert loss(output.logits, target).item() == pytest.approx(expected, abs=1e-5)


def test_overlapping_channels_do_not_compete(make_output, make_target):
    output = make_output(softmax=False)
    target = make_target(output, False)
    loss = SegmentationLoss(softmax=False)
    alone = torch.stack([loss(output.logits[:, c : c + 1], target[:, c : c + 1]) for c in range(5)])
    torch.testing.assert_close(loss(output.logits, target), alone.mean())


def test_perfect_prediction_costs_nothing(make_output, make_target):
    output = make_output()
    target = make_target(output)
    certain = torch.nn.functional.one_hot(target[:, 0], 6).movedim(-1, 1).float() * 200 - 100
    assert SegmentationLoss()(certain, target).item() == pytest.approx(0, abs=1e-5)
    masks = (certain > 0).float()
    assert SegmentationLoss(softmax=False)(certain, masks).item() == pytest.approx(0, abs=1e-5)


def test_absent_class_costs_one_and_gives_dice_no_gradient():
    logits = torch.zeros(1, 2, 2, 2, 2, requires_grad=True)
    dice = SegmentationLoss(softmax=False).dice(logits, torch.zeros(1, 2, 2, 2, 2))
    assert dice == 1
    dice.backward()
    assert logits.grad.abs().sum() == 0


@pytest.mark.parametrize(("softmax", "dice"), [(True, 1 / 2), (False, 1)])
def test_class_that_neither_shows_does_not_divide_by_zero(softmax, dice):
    """Its probabilities are 0 to the last bit; where classes exclude each other, the background fits."""
    logits = torch.full((1, 2, 2, 2, 2), -200.0)
    if softmax:
        logits[:, 0] = 200.0
    target = torch.zeros(1, 1 if softmax else 2, 2, 2, 2)
    assert SegmentationLoss(softmax)(logits, target).item() == pytest.approx(dice, abs=1e-5)


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_is_never_negative(make_output, make_target, softmax, seed):
    output = make_output(softmax=softmax, seed=seed)
    target = make_target(output, softmax)
    assert SegmentationLoss(softmax)(100 * output.logits, target) >= 0


@pytest.mark.parametrize("softmax", [True, False])
def test_batch_is_the_mean_of_its_samples(make_output, make_target, softmax):
    output = make_output(batch=3, softmax=softmax)
    target = make_target(output, softmax)
    loss = SegmentationLoss(softmax)
    alone = torch.stack([loss(output.logits[b : b + 1], target[b : b + 1]) for b in range(3)])
    torch.testing.assert_close(loss(output.logits, target), alone.mean())


@pytest.mark.parametrize("softmax", [True, False])
def test_is_computed_in_float32_under_autocast(make_output, make_target, softmax):
    output = make_output(softmax=softmax)
    target = make_target(output, softmax)
    loss = SegmentationLoss(softmax)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(output.logits, target)
        low = loss(output.logits.bfloat16(), target)
    assert found == loss(output.logits, target)
    assert low.dtype == found.dtype == torch.float32


def test_metadata_is_left_behind(make_output, make_target):
    output = make_output()
    target = make_target(output)
    loss = SegmentationLoss()
    found = loss(MetaTensor(output.logits.detach()), MetaTensor(target))
    assert type(found) is torch.Tensor
    assert found == loss(output.logits, target)


def test_target_is_checked(make_output, make_target):
    output = make_output()
    target = make_target(output)
    target[0, 0, 0, 0, 0] = 9
    with pytest.raises(ValueError, match=r"values \[9(.0)?\].*6 output channels"):
        SegmentationLoss()(output.logits, target)


@pytest.mark.parametrize("smoothing", [{"smooth_nr": 1e-3}, {"smooth_nr": -1.0}, {"smooth_dr": 0.0}])
def test_smoothing_that_could_turn_dice_negative_raises(smoothing):
    with pytest.raises(ValueError, match="0 <= smooth_nr <= smooth_dr"):
        SegmentationLoss(**smoothing)
