"""Class-embedding loss: cross-entropy of the encoder's class map against the decoder's predictions as soft targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.losses.precision import full_precision, no_autocast


class ClassEmbeddingLoss(nn.Module):
    """Cross-entropy of the class map against the decoder's pooled probabilities, less their entropy; equation 3.

    L_ClassEmbed = CE(MLP(V_4), P) - H(P).

    Exclusive classes, per cell: sum_c q_c (log q_c - log p_c), p = softmax(MLP(V_4)).
    Overlapping regions, per cell and channel: q log(q / p) + (1 - q) log((1 - q) / (1 - p)),
    p = sigmoid(MLP(V_4)). Both averaged over samples and cells, the latter over channels too.

    MLP(V_4) the class map, q the decoder's probabilities P averaged over the voxels of each cell of the
    class map's grid, detached: the decoder is the teacher and receives no gradient.

    Shapes: class_map B x C x h x w x d, logits B x C x H x W x D. Returns a scalar, at least 0, and 0 exactly
    where p = q.

    Deviations:
        - The paper takes the decoder's logits, downsampled, as pseudo-labels. Here the probabilities are
          pooled by area and stay soft: one cell is 32^3 voxels, where a single label is nearly always the
          background, and class maps that learn it become constant.
        - The entropy of q is subtracted: it has no gradient, but it would keep the loss of a perfect match
          above 0 and drive the uncertainty of equation 15.

    Args:
        softmax: softmax where classes exclude each other, else sigmoid.

    Raises:
        ValueError: in ``forward``, a class map and logits that differ in batch size or channels.
    """

    def __init__(self, softmax: bool = True) -> None:
        super().__init__()
        self.softmax = softmax

    def forward(self, class_map: Tensor, logits: Tensor) -> Tensor:
        """The loss of a batch, computed in float32."""
        if class_map.shape[:2] != logits.shape[:2]:
            raise ValueError(
                f"The class map {tuple(class_map.shape)} and the logits {tuple(logits.shape)} must agree in "
                "batch size and channels: give the class-embedding head the decoder's number of outputs."
            )
        with no_autocast(class_map):
            class_map = full_precision(class_map)
            target = self.soft_targets(logits, class_map.shape[2:])
            if self.softmax:
                cross_entropy = -(target * F.log_softmax(class_map, dim=1)).sum(dim=1)
                entropy = -torch.xlogy(target, target).sum(dim=1)
            else:
                cross_entropy = F.binary_cross_entropy_with_logits(class_map, target, reduction="none")
                entropy = -torch.xlogy(target, target) - torch.xlogy(1 - target, 1 - target)
            # Rounding can leave a perfect match at -1e-8.
            return (cross_entropy - entropy).mean().clamp_min(0)

    @torch.no_grad()
    def soft_targets(self, logits: Tensor, grid: torch.Size) -> Tensor:
        """Average the decoder's probabilities over each cell of the grid: q.  # B x C x h x w x d"""
        logits = full_precision(logits)
        probabilities = logits.softmax(dim=1) if self.softmax else logits.sigmoid()
        height, width, depth = grid
        return F.adaptive_avg_pool3d(probabilities, (height, width, depth))
