"""Measures of a collapsed alignment: top-1 accuracy, and mean cosine between different classes."""

from __future__ import annotations

import torch
from torch import Tensor


def top1_accuracy(similarity: Tensor, present: Tensor) -> Tensor:
    """Return the share of classes whose own partner is more similar than that of every other class.

    Equal similarities count as wrong, so embeddings that have collapsed score 0. Classes without a rival in
    their sample are left out; with none at all the answer is 1. A scalar.

    Args:
        similarity: one row per class, the positive pairs on the diagonal.  # B x N x N
        present: the classes that take part.  # B x N, bool
    """
    rivals = _pairs(present)
    positive = similarity.diagonal(dim1=-2, dim2=-1)
    best_rival = similarity.masked_fill(~rivals, -torch.inf).amax(dim=-1)
    contested = rivals.any(dim=-1)
    wrong = contested & ~(positive > best_rival)
    return 1 - wrong.sum() / contested.sum().clamp_min(1)


def mean_cosine(embeddings: Tensor, present: Tensor) -> Tensor:
    """Return the mean cosine between the embeddings of different classes of a sample, 1 after a collapse.

    0 where no sample has two classes. A scalar.

    Args:
        embeddings: unit vectors.  # B x N x P
        present: the classes that take part.  # B x N, bool
    """
    pairs = _pairs(present)
    cosines = embeddings @ embeddings.mT
    return cosines.masked_fill(~pairs, 0).sum() / pairs.sum().clamp_min(1)


def _pairs(present: Tensor) -> Tensor:
    """True where i and j are different classes and both present.  # B x N x N"""
    itself = torch.eye(present.shape[-1], dtype=torch.bool, device=present.device)
    return present.unsqueeze(-1) & present.unsqueeze(-2) & ~itself
