"""Partial labels: what a loss may read of a case in which only some of the classes are labelled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scripts.losses.targets import renumbered
from scripts.networks.outputs import BiPVLOutput


def labelled_part(
    logits: Tensor, target: Tensor, labelled: Sequence[bool], *, softmax: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the logits and the target of those classes that are labelled in a sample.

    Where classes exclude each other, what is not labelled may stand where the target has background:

        z'_0 = log(exp z_0 + sum over the unlabelled classes of exp z_i),

    so that the background's probability takes in theirs. An unlabelled class still gives way to the labelled ones. Of
    overlapping regions, the unlabelled ones are left out.

    Shapes: logits 1 x C x H x W x D; target 1 x 1 x H x W x D, 0..C-1, or 1 x C x H x W x D, binary. Of both, C becomes
    the number of labelled classes, with the background where classes exclude each other, and the target is renumbered.

    Args:
        logits: of the n classes asked for.
        target: holds none of the unlabelled ones.
        labelled: which of the n classes are; one at least.
        softmax: whether classes exclude each other.

    Raises:
        ValueError: no class is labelled.

    Source:
        Not in the paper. The marginal loss of Shi et al., "Marginal loss and exclusion loss for partially supervised
        multi-organ segmentation" (2021).
    """
    shown = [i for i, is_labelled in enumerate(labelled) if is_labelled]
    if not shown:
        raise ValueError("A step asks a case for classes of which none is labelled in it; one at least has to be.")
    if not softmax:
        return logits[:, shown], target[:, shown]
    rest = [0, *(i + 1 for i, is_labelled in enumerate(labelled) if not is_labelled)]
    background = logits[:, rest].logsumexp(dim=1, keepdim=True)
    own = torch.cat([background, logits[:, [i + 1 for i in shown]]], dim=1)
    return own, renumbered(target, shown, logits.shape[1])


def labelled_classes(output: BiPVLOutput) -> Tensor:
    """Return which of the N classes asked for are labelled in each sample, as a mask B x N of bool."""
    device, shape = output.vision_embeddings.device, output.vision_embeddings.shape[:2]
    labelled = output.question.labelled if output.question else None
    if labelled is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    return torch.tensor(labelled, device=device)
