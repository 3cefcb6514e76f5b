"""Losses of other methods' networks: deep supervision, contrasts, Dice and cross-entropy per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from monai.losses import DeepSupervisionLoss
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from scripts.losses.precision import full_precision, no_autocast
from scripts.losses.segmentation import SegmentationLoss
from scripts.losses.targets import check_target
from scripts.networks.outputs import Contrast, SupervisedOutput


class SupervisedLoss(nn.Module):
    """Segmentation loss over several heads (deep supervision) and contrasts, for networks of other methods.

    L = sum_k w_k L_seg(P_k, G_k) + sum_c L_contrast(c).

    P_k are the logits of each head and w_k its weight (``SupervisedOutput``); G_k is the reference on the grid of P_k,
    by nearest neighbour. A plain tensor of logits costs L_seg alone, so that one loss serves a network with and
    without deep supervision.

    Shapes: logits B x C x H x W x D; target B x 1 x H x W x D for exclusive classes, B x C x H x W x D for overlapping
    regions. Returns a scalar. After each ``forward``, ``terms`` holds detached scalars: ``loss``, ``segmentation``, and
    one for each contrast under its name.

    Args:
        softmax: whether classes exclude each other (softmax, background first) or overlap (sigmoid).
        segmentation: L_seg; ``SegmentationLoss(softmax)`` if None.

    Raises:
        ValueError: in ``forward``, a target that does not fit the logits.
    """

    def __init__(self, softmax: bool = True, segmentation: nn.Module | None = None) -> None:
        super().__init__()
        self.segmentation = segmentation if segmentation is not None else SegmentationLoss(softmax)
        self.terms: dict[str, Tensor] = {}

    def forward(self, output: SupervisedOutput | Tensor, target: Tensor) -> Tensor:
        """The loss of a batch, computed in float32."""
        # Not isinstance(output, SupervisedOutput): a reloaded module would bring a second class of that name.
        if isinstance(output, Tensor):
            output = SupervisedOutput(output)
        heads = DeepSupervisionLoss(cast(_Loss, self.segmentation), weights=list(output.weights))
        loss = heads([output.logits, *output.further], target.as_subclass(Tensor).float())
        self.terms = {"segmentation": loss.detach()}
        for name, contrast in output.contrasts.items():
            term = contrast_loss(contrast)
            self.terms[name] = term.detach()
            loss = loss + term
        self.terms["loss"] = loss.detach()
        return loss


class MarginalSigmoidLoss(nn.Module):
    """Dice and binary cross-entropy of each class by itself, over the classes that are labelled.

    L = sum over labelled classes i of (1 - 2 sum_j P_ij G_ij / (sum_j P_ij + sum_j G_ij + eps)) + BCE(P_i, G_i), with
    P = sigmoid(logits): one network for data sets that label different classes, each of which trains its own classes
    ("masked back-propagation"). The mean over the labelled classes is taken, not the sum, so that the number of classes
    does not set the step.

    Args:
        softmax: whether the target is one label map (background 0, which has a channel and is one of the classes) or
            one binary mask a class.
        labelled: the channels that the data set labels; None for all.
        smooth: eps, in numerator and denominator, so that an absent class with no prediction costs nothing.

    Raises:
        ValueError: ``labelled`` is empty or holds a number below 0.

    Source:
        Liu et al., "CLIP-Driven Universal Model" (2023). Its published code flattens a class slice by slice, so that a
        perfect prediction of an organ on 20 of 96 slices costs 0.79; here a class is one volume.
    """

    def __init__(self, softmax: bool = True, labelled: Sequence[int] | None = None, smooth: float = 1e-5) -> None:
        super().__init__()
        if labelled is not None and (not labelled or min(labelled) < 0):
            raise ValueError(f"`labelled` lists output channels, at least one, or is null; found {list(labelled)}.")
        self.softmax = softmax
        self.labelled = None if labelled is None else list(labelled)
        self.smooth = smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch (B x C x H x W x D), computed in float32."""
        check_target(logits, target, self.softmax)
        with no_autocast(logits):
            logits, target = full_precision(logits), full_precision(target)
            if self.softmax:
                target = F.one_hot(target[:, 0].long(), logits.shape[1]).movedim(-1, 1).to(logits.dtype)
            if self.labelled is not None:
                logits, target = logits[:, self.labelled], target[:, self.labelled]
            found, wanted = logits.sigmoid().flatten(2), target.flatten(2)
            overlap, total = (found * wanted).sum(-1), found.sum(-1) + wanted.sum(-1)
            dice = 1 - (2 * overlap + self.smooth) / (total + self.smooth)
            return dice.mean() + F.binary_cross_entropy_with_logits(logits, target)


def contrast_loss(contrast: Contrast) -> Tensor:
    """Cross-entropy of softmax(first . second / temperature) against the positives, averaged over rows and batch.

    Several positives of a row share its target evenly.
    """
    with no_autocast(contrast.first):
        first, second = full_precision(contrast.first), full_precision(contrast.second)
        scores = first @ second.transpose(1, 2) / full_precision(contrast.temperature)
        positives = contrast.positives.to(scores.dtype)
        loss = _cross_entropy(scores, positives, contrast.smoothing)
        if contrast.symmetric:
            loss = (loss + _cross_entropy(scores.transpose(1, 2), positives.T, contrast.smoothing)) / 2
        return loss


def _cross_entropy(scores: Tensor, positives: Tensor, smoothing: float) -> Tensor:
    targets = positives / positives.sum(dim=1, keepdim=True)
    targets = (1 - smoothing) * targets + smoothing / targets.shape[1]
    return torch.mean(torch.sum(-targets * F.log_softmax(scores, dim=-1), dim=-1))
