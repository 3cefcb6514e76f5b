"""Output of the network in training, as the losses read it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AskedClasses:
    """The N classes that a training step asks for, out of all classes of the data set.

    Attributes:
        classes: their rows in the concept table, in the order of the output's channels.
        num_classes: how many rows the table has; the target has a label for each.
        mirrored: whether the image was mirrored from left to right.
    """

    classes: tuple[int, ...]
    num_classes: int
    mirrored: bool


@dataclass
class BiPVLOutput:
    """Everything that the losses read of one training batch.

    B batch, C output channels, N foreground classes, K concepts a class, P width of the shared space.
    C is N + 1 with the background first where classes exclude each other, and N where regions overlap;
    the class axis of the embeddings never holds the background. N counts the classes that the step asked for.

    Attributes:
        logits: the decoder's predictions P before softmax or sigmoid.  # B x C x H x W x D
        class_map: MLP(V_4) of eq. 3, logits on the grid of the last stage.  # B x C x h x w x d
        vision_embeddings: V' of eq. 4, L2-normalised.  # B x N x P
        concept_embeddings: t'_k of eq. 4, L2-normalised.  # B x N x K x P
        same_sentence: True where classes i and j have the same sentence for concept k (always on i = j);
            such pairs are no negatives of each other.  # N x N x K, bool
        question: what was asked for, where it was not simply all classes in their order: the target has to follow.
    """

    logits: Tensor
    class_map: Tensor
    vision_embeddings: Tensor
    concept_embeddings: Tensor
    same_sentence: Tensor
    question: AskedClasses | None = None


torch.export.register_dataclass(BiPVLOutput)  # lets DistributedDataParallel find the tensors in it
