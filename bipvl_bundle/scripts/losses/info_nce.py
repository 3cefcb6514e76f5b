"""InfoNCE loss over a square matrix of similarities whose diagonal holds the positive pairs."""

from __future__ import annotations

import torch
from torch import Tensor


def info_nce(similarity: Tensor, negatives: Tensor, temperature: float, hard_negatives: int | None = None) -> Tensor:
    """Compute the InfoNCE loss of each row of a similarity matrix, equations 6 and 7 of the paper.

    l_i = -log exp(S_ii / tau) / (exp(S_ii / tau) + sum over j in N_i of exp(S_ij / tau))

    S similarities, tau the temperature, N_i the negatives of row i: all that the mask allows (6), or the
    ``hard_negatives`` most similar of them (7), fewer where fewer are left. A row without a negative costs
    0 and gives no gradient. l_i is never below 0.

    Shapes: similarity ... x N x N; negatives, bool, broadcastable to it; the result ... x N.

    Deviations:
        - (7) leaves the positive out of the denominator, so the loss has no lower bound; it is added.

    Args:
        similarity: cosines, one row per anchor.
        negatives: True where j may be a negative of i; the diagonal never is, whatever the mask says.
        temperature: tau.
        hard_negatives: K of equation 7, or None for every negative.
    """
    classes = similarity.shape[-1]
    logits = similarity / temperature
    positive = logits.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    itself = torch.eye(classes, dtype=torch.bool, device=similarity.device)
    others = logits.masked_fill(~negatives | itself, -torch.inf)
    if hard_negatives is not None:
        others = others.topk(min(hard_negatives, classes), dim=-1).values
    return torch.logsumexp(torch.cat([positive, others], dim=-1), dim=-1) - positive.squeeze(-1)
