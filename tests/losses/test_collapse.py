from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from scripts.losses.collapse import mean_cosine, rival_pairs, top1_accuracy


def everyone(batch, classes):
    return rival_pairs(torch.ones(batch, classes, dtype=torch.bool))


def test_top1_counts_rows_whose_partner_wins():
    similarity = torch.tensor([[[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.0, 0.1, 0.3]]])
    assert top1_accuracy(similarity, everyone(1, 3)).item() == pytest.approx(2 / 3)
    # Down the columns: 0.9 wins, 0.5 wins, 0.3 wins.
    assert top1_accuracy(similarity.mT, everyone(1, 3)) == 1


def test_top1_of_equal_similarities_is_zero():
    assert top1_accuracy(torch.ones(2, 4, 4), everyone(2, 4)) == 0


def test_top1_looks_at_present_classes_only():
    similarity = torch.tensor([[[0.5, 0.9, 0.1], [0.0, 0.1, 0.2], [0.1, 0.9, 0.3]]])
    assert top1_accuracy(similarity, everyone(1, 3)) == 0
    assert top1_accuracy(similarity, rival_pairs(torch.tensor([[True, False, True]]))) == 1


def test_top1_leaves_out_classes_without_a_rival():
    similarity = torch.zeros(2, 2, 2)
    present = torch.tensor([[True, True], [True, False]])
    assert top1_accuracy(similarity, rival_pairs(present)) == 0
    assert top1_accuracy(similarity, rival_pairs(torch.tensor([[True, False], [False, False]]))) == 1


def test_top1_does_not_take_nan_for_success():
    assert top1_accuracy(torch.full((1, 2, 2), torch.nan), everyone(1, 2)) == 0


def test_mean_cosine_of_known_angles():
    embeddings = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    # Pairs: 0, -1, 0.
    assert mean_cosine(embeddings, everyone(1, 3)).item() == pytest.approx(-1 / 3)
    assert mean_cosine(embeddings, rival_pairs(torch.tensor([[True, False, True]]))) == -1


def test_mean_cosine_after_a_collapse_is_one():
    embeddings = F.normalize(torch.ones(3, 4, 5), dim=-1)
    assert mean_cosine(embeddings, everyone(3, 4)).item() == pytest.approx(1)


def test_mean_cosine_of_a_single_class_is_zero():
    assert mean_cosine(torch.ones(2, 1, 4), everyone(2, 1)) == 0


def test_both_answer_for_each_of_the_leading_axes():
    similarity = torch.tensor([[[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.0, 0.1, 0.3]]])
    accuracies = top1_accuracy(torch.stack([similarity, similarity.mT]), everyone(1, 3))
    torch.testing.assert_close(accuracies, torch.tensor([2 / 3, 1.0]))
    apart, alike = torch.eye(3)[None], torch.ones(1, 3, 3) / 3**0.5
    torch.testing.assert_close(mean_cosine(torch.stack([apart, alike]), everyone(1, 3)), torch.tensor([0.0, 1.0]))
