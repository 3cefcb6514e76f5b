"""Measures of a collapsed alignment: top-1 accuracy, and mean cosine between different classes."""

from __future__ import annotations

import torch
from torch import Tensor


def rival_pairs(present: Tensor) -> Tensor:
    """Return True where i and j are different classes that both take part.  # B x N x N

    Args:
        present: the classes that take part.  # B x N, bool
    """
    itself = torch.eye(present.shape[-1], dtype=torch.bool, device=present.device)
    return present.unsqueeze(-1) & present.unsqueeze(-2) & ~itself


def top1_accuracy(similarity: Tensor, rivals: Tensor) -> Tensor:
    """Return the share of classes whose own partner is more similar than that of every other class.

    Equal similarities count as wrong, so embeddings that have collapsed score 0. Classes without a rival in
    their sample are left out; with none at all the answer is 1. One number for each of the leading axes.

    Args:
        similarity: one row per class, the positive pairs on the diagonal.  # ... x B x N x N
        rivals: see ``rival_pairs``.  # B x N x N, bool
    """
    positive = similarity.diagonal(dim1=-2, dim2=-1)
    best_rival = similarity.masked_fill(~rivals, -torch.inf).amax(dim=-1)
    contested = rivals.any(dim=-1)
    wrong = contested & ~(positive > best_rival)
    return 1 - wrong.sum(dim=(-2, -1)) / contested.sum().clamp_min(1)


def mean_cosine(embeddings: Tensor, rivals: Tensor) -> Tensor:
    """Return the mean cosine between the embeddings of different classes of a sample, 1 after a collapse.

    0 where no sample has two classes. One number for each of the leading axes.

    Args:
        embeddings: unit vectors.  # ... x B x N x P
        rivals: see ``rival_pairs``.  # B x N x N, bool
    """
    cosines = embeddings @ embeddings.mT
    return cosines.masked_fill(~rivals, 0).sum(dim=(-3, -2, -1)) / rivals.sum().clamp_min(1)
