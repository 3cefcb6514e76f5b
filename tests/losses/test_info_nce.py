from __future__ import annotations

import math

import pytest
import torch

from scripts.losses.info_nce import info_nce

ALL = torch.tensor(True)


def plain_info_nce(similarity, negatives, temperature, hard_negatives=None):
    """Equations 6 and 7 for one matrix, row by row."""
    losses = []
    for i, row in enumerate(similarity):
        others = [s for j, s in enumerate(row) if j != i and negatives[i][j]]
        others = sorted(others, reverse=True)[:hard_negatives]
        positive = math.exp(row[i] / temperature)
        losses.append(-math.log(positive / (positive + sum(math.exp(s / temperature) for s in others))))
    return losses


def test_hand_computed_rows():
    similarity = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    loss = info_nce(similarity, ALL, temperature=0.5)
    # Row 0: e^2 against e^0. Row 1: two equal ones.
    torch.testing.assert_close(loss, torch.tensor([math.log(1 + math.exp(-2)), math.log(2)]))


@pytest.mark.parametrize("hard_negatives", [None, 1, 2, 3, 10])
def test_equals_the_plain_loop(hard_negatives):
    generator = torch.Generator().manual_seed(3)
    similarity = torch.rand(2, 3, 6, 6, generator=generator) * 2 - 1
    negatives = torch.rand(2, 3, 6, 6, generator=generator) > 0.4
    loss = info_nce(similarity, negatives, 0.2, hard_negatives)
    for b in range(2):
        for k in range(3):
            expected = plain_info_nce(similarity[b, k].tolist(), negatives[b, k].tolist(), 0.2, hard_negatives)
            torch.testing.assert_close(loss[b, k], torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_hard_negatives_are_the_most_similar_wrong_ones():
    similarity = torch.tensor([[0.9, 0.1, 0.8, -0.5, 0.3]]).repeat(5, 1).requires_grad_()
    info_nce(similarity, ALL, 0.2, hard_negatives=2)[0].backward()
    touched = similarity.grad[0].abs() > 0
    # The positive (0.9) takes part as such; of the others the two largest.
    assert touched.tolist() == [True, False, True, False, True]


def test_positive_is_never_a_negative_of_its_own():
    # The positive is the largest entry: as its own hard negative it would cost log 2 at least.
    similarity = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    loss = info_nce(similarity, ALL, 0.2, hard_negatives=1)
    torch.testing.assert_close(loss, torch.full((2,), math.log(1 + math.exp(-10))))


def test_row_without_negatives_costs_nothing_and_has_finite_gradients():
    similarity = torch.tensor([[0.2, 0.9], [0.1, 0.3]], requires_grad=True)
    negatives = torch.tensor([[True, False], [True, True]])
    for hard_negatives in (None, 3):
        loss = info_nce(similarity, negatives, 0.2, hard_negatives)
        assert loss[0] == 0
        assert loss[1] > 0
        (gradient,) = torch.autograd.grad(loss.sum(), similarity)
        assert gradient[0].tolist() == [0, 0]
        assert gradient.isfinite().all()


@pytest.mark.parametrize("seed", range(20))
def test_is_never_negative(seed):
    similarity = torch.rand(4, 7, 7, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    similarity[0].fill_diagonal_(1)
    for hard_negatives in (None, 1, 3):
        assert (info_nce(similarity, ALL, 0.01, hard_negatives) >= 0).all()


def test_gradient_agrees_with_finite_differences():
    similarity = (torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1).double()
    similarity.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: info_nce(s, ALL, 0.2, 2), similarity)
