"""Segmentation loss: Dice and cross-entropy."""

from __future__ import annotations

from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn

from scripts.losses.precision import full_precision, no_autocast
from scripts.losses.targets import check_target


class SegmentationLoss(nn.Module):
    """Sum of Dice with squared denominators and cross-entropy, equations 1 and 11 to 13 of the paper.

    L_seg = L_dice(P, G) + L_ce(P, G).

    L_dice = 1 - 2 sum_j P_j G_j / (sum_j P_j^2 + sum_j G_j^2 + eps), for each class of each sample (12),
    averaged. L_ce is the mean cross-entropy (13): over the channels together where classes exclude each
    other, binary for each channel where regions overlap.

    P probabilities (softmax or sigmoid of the logits), G the reference, j the voxels, eps ``smooth_dr``.

    Shapes: logits B x C x H x W x D; target B x 1 x H x W x D, integers 0..C-1, for exclusive classes,
    B x C x H x W x D, binary, for overlapping regions. Returns a scalar, at least 0.

    Deviations:
        - (13) is written in binary form and as a sum over the voxels. Exclusive classes take the
          categorical form of their softmax, and both forms are means, so that the size of the patch does
          not weigh the loss.
        - For overlapping regions ``monai.losses.DiceCELoss`` would take a softmax over the channels, so
          its parts are composed with the binary cross-entropy here.

    Args:
        softmax: softmax where classes exclude each other, else sigmoid.
        include_background: whether Dice counts the background; equation 12 leaves nothing out.
        smooth_nr: added to Dice's numerator; 0 in equation 12, where an absent class costs 1 whatever the
            prediction and gives no gradient.
        smooth_dr: eps.

    Raises:
        ValueError: ``smooth_nr`` above ``smooth_dr`` (the loss could fall below 0); in ``forward``, a target
            that does not fit the logits.
    """

    def __init__(
        self,
        softmax: bool = True,
        *,
        include_background: bool = True,
        smooth_nr: float = 0.0,
        smooth_dr: float = 1e-5,
    ) -> None:
        super().__init__()
        if not 0 <= smooth_nr <= smooth_dr or smooth_dr == 0:
            raise ValueError(
                f"Dice needs 0 <= smooth_nr <= smooth_dr and smooth_dr > 0, got smooth_nr {smooth_nr} and "
                f"smooth_dr {smooth_dr}: otherwise it can fall below 0 or divide by 0."
            )
        self.softmax = softmax
        if softmax:
            self.dice_ce = DiceCELoss(
                include_background=include_background,
                to_onehot_y=True,
                softmax=True,
                squared_pred=True,
                smooth_nr=smooth_nr,
                smooth_dr=smooth_dr,
            )
        else:
            self.dice = DiceLoss(sigmoid=True, squared_pred=True, smooth_nr=smooth_nr, smooth_dr=smooth_dr)
            self.binary_cross_entropy = nn.BCEWithLogitsLoss()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch, computed in float32."""
        check_target(logits, target, self.softmax)
        with no_autocast(logits):
            logits, target = full_precision(logits), full_precision(target)
            if self.softmax:
                return self.dice_ce(logits, target)
            return self.dice(logits, target) + self.binary_cross_entropy(logits, target)
