from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special

from scripts.losses.class_embedding import ClassEmbeddingLoss


def plain_targets(logits, softmax):
    """Probabilities averaged over blocks of 2 x 2 x 2 voxels, one loop for every index."""
    logits = logits.detach().double().numpy()
    probabilities = special.softmax(logits, axis=1) if softmax else 1 / (1 + np.exp(-logits))
    batch, channels, *grid = (*logits.shape[:2], *(n // 2 for n in logits.shape[2:]))
    pooled = np.zeros((batch, channels, *grid))
    for cell in np.ndindex(*grid):
        block = tuple(slice(2 * n, 2 * n + 2) for n in cell)
        for b in range(batch):
            for c in range(channels):
                pooled[(b, c, *cell)] = probabilities[(b, c, *block)].mean()
    return pooled


def random_pair(softmax=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    class_map = torch.randn(2, 4, 2, 3, 2, generator=generator).requires_grad_()
    logits = (3 * torch.randn(2, 4, 4, 6, 4, generator=generator)).requires_grad_()
    return class_map, logits


def test_hand_computed_exclusive_case():
    # Both voxels of the single cell are certain, one of each class: q = (1/2, 1/2); p = (1/4, 3/4).
    logits = torch.tensor([[[50.0, -50.0], [-50.0, 50.0]]]).reshape(1, 2, 2, 1, 1)
    class_map = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1, 1)
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert ClassEmbeddingLoss()(class_map, logits).item() == pytest.approx(expected, abs=1e-6)


def test_hand_computed_overlapping_case():
    # Channel 0: q = 1/2, p = 1/4. Channel 1: q = 1, p = 1/2.
    logits = torch.tensor([[[50.0, -50.0], [50.0, 50.0]]]).reshape(1, 2, 2, 1, 1)
    class_map = torch.tensor([-math.log(3), 0.0]).reshape(1, 2, 1, 1, 1)
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert ClassEmbeddingLoss(softmax=False)(class_map, logits).item() == pytest.approx(
        (first + math.log(2)) / 2, abs=1e-6
    )


@pytest.mark.parametrize("softmax", [True, False])
def test_equals_the_relative_entropy_of_scipy(softmax):
    class_map, logits = random_pair()
    q = plain_targets(logits, softmax)
    raw = class_map.detach().double().numpy()
    if softmax:
        expected = special.rel_entr(q, special.softmax(raw, axis=1)).sum(axis=1).mean()
    else:
        p = 1 / (1 + np.exp(-raw))
        expected = (special.rel_entr(q, p) + special.rel_entr(1 - q, 1 - p)).mean()
    assert ClassEmbeddingLoss(softmax)(class_map, logits).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("softmax", [True, False])
def test_perfect_match_costs_nothing(softmax):
    _, logits = random_pair()
    q = torch.from_numpy(plain_targets(logits, softmax))
    class_map = (q.log() if softmax else q.logit()).float()
    assert ClassEmbeddingLoss(softmax)(class_map, logits).item() == pytest.approx(0, abs=1e-6)
    assert ClassEmbeddingLoss(softmax)(class_map + torch.randn(class_map.shape), logits) > 0.01


def test_certain_predictions_cost_a_finite_amount():
    # q is exactly 0 and 1, where q log q needs its limit.
    logits = torch.tensor([1000.0, -1000.0]).reshape(1, 2, 1, 1, 1).repeat(1, 1, 4, 4, 4)
    class_map = torch.zeros(1, 2, 2, 2, 2, requires_grad=True)
    for softmax in (True, False):
        loss = ClassEmbeddingLoss(softmax)(class_map, logits)
        assert loss.item() == pytest.approx(math.log(2))
        loss.backward()
        assert class_map.grad.isfinite().all()


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_is_never_negative(softmax, seed):
    class_map, logits = random_pair(seed=seed)
    loss = ClassEmbeddingLoss(softmax)
    assert loss(class_map, logits) >= 0
    # The same numbers on either side leave rounding only.
    assert loss(class_map, class_map) >= 0


def test_no_gradient_reaches_the_decoder():
    for softmax in (True, False):
        class_map, logits = random_pair()
        ClassEmbeddingLoss(softmax)(class_map, logits).backward()
        assert logits.grad is None
        assert (class_map.grad.abs() > 0).all()


def test_gradient_is_the_difference_of_the_probabilities():
    class_map, logits = random_pair()
    ClassEmbeddingLoss()(class_map, logits).backward()
    q = torch.from_numpy(plain_targets(logits, softmax=True)).float()
    expected = (class_map.softmax(dim=1) - q) / (2 * 2 * 3 * 2)  # samples x cells
    torch.testing.assert_close(class_map.grad, expected.detach())


@pytest.mark.parametrize("softmax", [True, False])
def test_batch_is_the_mean_of_its_samples(softmax):
    class_map, logits = random_pair()
    loss = ClassEmbeddingLoss(softmax)
    alone = torch.stack([loss(class_map[b : b + 1], logits[b : b + 1]) for b in range(2)])
    torch.testing.assert_close(loss(class_map, logits), alone.mean())


@pytest.mark.parametrize("softmax", [True, False])
def test_permuting_channels_changes_nothing(softmax):
    class_map, logits = random_pair()
    order = [2, 0, 3, 1]
    loss = ClassEmbeddingLoss(softmax)
    torch.testing.assert_close(loss(class_map, logits), loss(class_map[:, order], logits[:, order]))


def test_grid_need_not_divide_the_volume():
    class_map, logits = random_pair()
    targets = ClassEmbeddingLoss().soft_targets(logits[..., :5, :], class_map.shape[2:])
    assert targets.shape == class_map.shape
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(2, 2, 3, 2))


def test_is_computed_in_float32_under_autocast():
    class_map, logits = random_pair()
    for softmax in (True, False):
        loss = ClassEmbeddingLoss(softmax)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(class_map, logits)
            low = loss(class_map.bfloat16(), logits.bfloat16())
        assert found == loss(class_map, logits)
        assert low.dtype == found.dtype == torch.float32


def test_nan_is_not_hidden():
    class_map, logits = random_pair()
    assert ClassEmbeddingLoss()(torch.full_like(class_map, torch.nan), logits).isnan()
    assert ClassEmbeddingLoss()(class_map, torch.full_like(logits, torch.nan)).isnan()


def test_different_channels_raise():
    class_map, logits = random_pair()
    with pytest.raises(ValueError, match=r"class map \(2, 3, 2, 3, 2\) and the logits \(2, 4, 4, 6, 4\)"):
        ClassEmbeddingLoss()(class_map[:, :3], logits)
