"""Data classes of what networks return in training, for the losses."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class AskedClasses:
    """The N classes that a training step asks for, out of all classes of the data set.

    Attributes:
        classes: their rows in the concept table, in the order of the output's channels.
        num_classes: how many rows the table has; the target has a label for each.
        mirrored: whether the image was mirrored from left to right.
        labelled: for each of the B samples, which of the N classes its labels show, where not all: an unlabelled class
            may stand where the target has background.
    """

    classes: tuple[int, ...]
    num_classes: int
    mirrored: bool
    labelled: tuple[tuple[bool, ...], ...] | None = None  # B x N


@dataclass
class BiPVLOutput:
    """Output of a BiPVL-Seg for one training batch: logits, class map and embeddings.

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


@dataclass
class Contrast:
    """Two sets of N embeddings that a contrastive loss pulls together.

    Attributes:
        first: L2-normalised.  # B x N x P
        second: L2-normalised.  # B x N x P
        temperature: a positive scalar; cosines are divided by it.
        positives: which of ``second`` belong to which of ``first``, at least one each.  # N x N, bool
        symmetric: whether ``second`` is to find its own among ``first`` too.
        smoothing: of the targets, towards a uniform distribution.
    """

    first: Tensor
    second: Tensor
    temperature: Tensor
    positives: Tensor
    symmetric: bool = False
    smoothing: float = 0.0


@dataclass
class SupervisedOutput:
    """Output in training of a network of another method: logits, further heads, contrasts.

    Attributes:
        logits: those of a prediction.  # B x C x H x W x D
        further: logits of other heads, at the same or a lower resolution (deep supervision).  # B x C x h x w x d
        weights: of the segmentation losses of ``logits`` and of each of ``further``.
        contrasts: by name; their losses are added.
    """

    logits: Tensor
    further: tuple[Tensor, ...] = ()
    weights: tuple[float, ...] = (1.0,)
    contrasts: dict[str, Contrast] = field(default_factory=dict)


for _output in (BiPVLOutput, Contrast, SupervisedOutput):
    torch.export.register_dataclass(_output)  # lets DistributedDataParallel find the tensors in it
