"""Total loss: segmentation, class embedding and alignment, weighted by learned uncertainties."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.losses.alignment import AlignmentLoss
from scripts.losses.class_embedding import ClassEmbeddingLoss
from scripts.losses.partial_labels import labelled_classes, labelled_part
from scripts.losses.precision import no_autocast
from scripts.losses.segmentation import SegmentationLoss
from scripts.losses.targets import asked_target, present_classes
from scripts.networks.outputs import BiPVLOutput

TERMS = ("segmentation", "class_embedding", "alignment")


class BiPVLLoss(nn.Module):
    """Total loss of three terms weighted by learned uncertainties, equations 10, 14 and 15 of the paper.

    L = sum_i 1/2 exp(-s_i) L_i + 1/2 s_i, s_i = log sigma_i^2.

    L_1 segmentation, L_2 class embedding, L_3 alignment; s_i ``log_variance``, a parameter of shape (3,)
    that starts at 0. For a fixed L_i the optimum is s_i = log L_i. The parameter belongs on the device, in
    the optimiser (in a group without weight decay) and in the checkpoint like any other of the training's
    state, and is synchronised by DistributedDataParallel where the loss is wrapped in it.

    The output of a network without words, a plain tensor of logits, costs the segmentation loss alone,
    unweighted: a backbone trains in the same trainer. So does a BiPVL-Seg with both other terms off.

    After each ``forward``, ``terms`` holds detached scalars: ``loss``; each L_i that takes part under its
    name in ``TERMS``, with ``weight_<name>`` (1/2 exp(-s_i)) and ``log_variance_<name>``; and the terms of
    ``AlignmentLoss``. A plain tensor leaves ``loss`` and ``segmentation``.

    Shapes: logits B x C x H x W x D; target B x 1 x H x W x D, integers 0..C-1, for exclusive classes,
    B x C x H x W x D, binary, for overlapping regions. Returns a scalar; it can be negative by the s_i, each
    L_i cannot. It is NaN or infinite where a term is.

    Deviations:
        - s_i is learnt in place of sigma_i: exp(-s) is positive and smooth for every s.
        - A term that is switched off loses its 1/2 s_i too: without a loss to hold it, s_i would fall for
          ever. So does the alignment of a batch that has nothing to contrast (a single class; with
          ``present_only``, fewer than two classes in every patch).
        - Of cases in which only some of the classes are labelled, L_1 and L_3 read these (``labelled_part``). L_2 reads
          predictions alone.
        - A term that is left alone is taken as it is: there is nothing to balance.

    Args:
        softmax: whether classes exclude each other (softmax, background first) or overlap (sigmoid).
        segmentation: L_1; ``SegmentationLoss(softmax)`` if None.
        class_embedding: L_2; ``ClassEmbeddingLoss(softmax)`` if None.
        alignment: L_3; ``AlignmentLoss()`` if None. With both its weights 0 it is switched off.
        use_class_embedding: False trains without L_2.
        use_alignment: False trains without L_3.

    Raises:
        ValueError: in ``forward``, a target that does not fit the logits, or another number of class
            embeddings than of foreground classes.
    """

    def __init__(
        self,
        softmax: bool = True,
        segmentation: nn.Module | None = None,
        class_embedding: nn.Module | None = None,
        alignment: AlignmentLoss | None = None,
        *,
        use_class_embedding: bool = True,
        use_alignment: bool = True,
    ) -> None:
        super().__init__()
        self.softmax = softmax
        self.segmentation = segmentation if segmentation is not None else SegmentationLoss(softmax)
        self.class_embedding = class_embedding if class_embedding is not None else ClassEmbeddingLoss(softmax)
        self.alignment = alignment if alignment is not None else AlignmentLoss()
        self.use_class_embedding = use_class_embedding
        self.use_alignment = use_alignment and self.alignment.enabled
        self.log_variance = nn.Parameter(torch.zeros(len(TERMS)))
        self.terms: dict[str, Tensor] = {}

    def forward(self, output: BiPVLOutput | Tensor, target: Tensor) -> Tensor:
        """Return the total loss of a batch, computed in float32."""
        # Not isinstance(output, BiPVLOutput): a reloaded module would bring a second class of that name.
        if isinstance(output, Tensor):
            loss = self.segmentation(output, target)
            self.terms = {"loss": loss.detach(), "segmentation": loss.detach()}
            # 0 * s keeps the parameter in the graph: DistributedDataParallel wants all of them there.
            return loss + 0 * self.log_variance.sum()
        self._check(output)
        target = asked_target(output, target, self.softmax)
        losses, details, contrasts = self._all_losses(output, target)
        loss, weights = self._balance(losses, contrasts)
        if not self.use_alignment:  # as above: what only the alignment reads stays in the graph
            loss = loss + 0 * (output.vision_embeddings.flatten()[0] + output.concept_embeddings.flatten()[0])
        self.terms = {"loss": loss.detach()}
        for i, name in enumerate(TERMS):
            if name in losses:
                self.terms[name] = losses[name].detach()
                self.terms[f"weight_{name}"] = weights[i].detach()
                self.terms[f"log_variance_{name}"] = self.log_variance[i].detach().clone()
        self.terms.update(details)
        return loss

    def _check(self, output: BiPVLOutput) -> None:
        channels, classes = output.logits.shape[1], output.vision_embeddings.shape[1]
        if classes != channels - int(self.softmax):
            raise ValueError(
                f"The network embeds {classes} classes and has {channels} output channels; "
                f"{'exclusive classes need one channel more' if self.softmax else 'regions need as many'}. "
                f"Set `softmax` ({self.softmax}) alike in network and loss."
            )

    def _all_losses(self, output: BiPVLOutput, target: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """L_1 to L_3, those in use; the terms of the alignment; whether it had anything to contrast."""
        losses = {"segmentation": self._segmentation(output, target)}
        if self.use_class_embedding:
            losses["class_embedding"] = self.class_embedding(output.class_map, output.logits)
        details: dict[str, Tensor] = {}
        contrasts = torch.ones((), device=self.log_variance.device)
        if self.use_alignment:
            present = labelled_classes(output)
            if self.alignment.present_only:
                present = present_classes(target, output.logits.shape[1], self.softmax)
            losses["alignment"], details = self.alignment(output, present)
            contrasts = present.sum(dim=-1).gt(1).any()
        return losses, details, contrasts

    def _segmentation(self, output: BiPVLOutput, target: Tensor) -> Tensor:
        """L_1, which reads of each sample what is labelled in it."""
        labelled = output.question.labelled if output.question else None
        if labelled is None:
            return self.segmentation(output.logits, target)
        samples = zip(output.logits.split(1), target.split(1), labelled, strict=True)
        return torch.stack(
            [self.segmentation(*labelled_part(*sample, softmax=self.softmax)) for sample in samples]
        ).mean()

    def _balance(self, losses: dict[str, Tensor], contrasts: Tensor) -> tuple[Tensor, Tensor]:
        """Equation 15 over the terms in use, and the weights of all three."""
        s = self.log_variance
        with no_autocast(s):
            zero = losses["segmentation"].new_zeros(())
            values = torch.stack([losses.get(name, zero) for name in TERMS])
            in_use = torch.tensor([float(name in losses) for name in TERMS], device=s.device)
            if len(losses) == 1:
                return (in_use * values).sum() + 0 * s.sum(), in_use
            in_use[TERMS.index("alignment")] *= contrasts
            weights = 0.5 * torch.exp(-s) * in_use
            return (weights * values + 0.5 * s * in_use).sum(), weights
