"""Contrastive alignment loss between image and text embeddings of the classes, global and local."""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.losses.collapse import mean_cosine, rival_pairs, top1_accuracy
from scripts.losses.info_nce import info_nce
from scripts.losses.precision import full_precision, no_autocast
from scripts.networks.outputs import BiPVLOutput


class AlignmentLoss(nn.Module):
    """Contrastive loss that aligns each class's image embedding with its sentences, equations 4 to 9 of the paper.

    L_alignment = alpha_1 L_global + alpha_2 L_local.

    Aggregated text (4):  w_k = softmax over the K concepts of a class of cos(t'_k, V'),
                          T = norm(sum_k w_k t'_k).
    Global (5, 6):        S_ij = cos(V_i, T_j); InfoNCE of V -> T (rows of S) and of T -> V (its columns),
                          averaged over the N classes and the two directions.
    Local (7, 8):         for each concept k, S_ij = cos(V_i, t_jk); the same, each row against its 3 most
                          similar wrong classes; averaged over the K concepts.

    V' vision embeddings, t'_k concept embeddings, T aggregated text, tau temperature, N foreground
    classes, K concepts a class, P the width of the shared space. Each sample is a contrast of its own; the
    batch is the mean over samples.

    Shapes: ``vision_embeddings`` B x N x P, ``concept_embeddings`` B x N x K x P, ``same_sentence``
    N x N x K, ``present`` B x N. Returns the loss, a scalar of at least 0, and the terms named under
    ``forward``.

    With one class there is nothing to contrast: the loss is 0. With one sentence a class (K = 1) global and
    local would contrast the same pairs, so only the global alignment applies and ``local_weight`` counts
    as 0.

    Deviations:
        - T is summed from the projected t'_k; the paper's (4) writes t_k, which does not live in the space
          of V.
        - The positive joins the denominator of (7): left out, the loss has no lower bound, and under
          equation 15 neither has the total.
        - A class whose sentence for concept k is the same is no negative for that concept: equal sentences
          stay equal through the encoder, and pushing them apart teaches a contradiction. A class left
          without negatives costs 0 and still counts in the mean.
        - The noise is drawn once for V and once for T, serves both directions of the global term, and does
          not enter w_k or the local term.

    Args:
        temperature: tau.
        noise: standard deviation of the Gaussian noise on the unit vectors V and T, in training mode.
        hard_negatives: negatives for each row of the local term, fewer where fewer are left;
            None takes every wrong class.
        global_weight: alpha_1.
        local_weight: alpha_2.
        present_only: whether only the classes in the patch take part, by the mask that ``forward`` is then to be given;
            the paper aligns all of them. A sample with fewer than two costs 0.

    Raises:
        ValueError: an argument out of its range; in ``forward``, embeddings whose shapes disagree, a missing
            mask, or one sentence a class where only the local term is switched on.
    """

    def __init__(
        self,
        temperature: float = 0.2,
        noise: float = 0.01,
        hard_negatives: int | None = 3,
        *,
        global_weight: float = 1.0,
        local_weight: float = 1.0,
        present_only: bool = False,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("temperature", temperature, temperature > 0),
            ("noise", noise, noise >= 0),
            ("hard_negatives", hard_negatives, hard_negatives is None or hard_negatives >= 1),
            ("global_weight", global_weight, global_weight >= 0),
            ("local_weight", local_weight, local_weight >= 0),
        ):
            if not allowed:
                bound = {"temperature": "above 0", "hard_negatives": "at least 1"}.get(name, "at least 0")
                raise ValueError(f"AlignmentLoss needs `{name}` {bound}, got {value}.")
        self.temperature = temperature
        self.noise = noise
        self.hard_negatives = hard_negatives
        self.global_weight = global_weight
        self.local_weight = local_weight
        self.present_only = present_only

    @property
    def enabled(self) -> bool:
        """Whether any of the two terms has a weight."""
        return self.global_weight > 0 or self.local_weight > 0

    def forward(self, output: BiPVLOutput, present: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, computed in float32, and detached terms to log.

        The terms are ``alignment_global`` and ``alignment_local`` (before their weights, each only where it
        applies) and the signs of a collapse, measured without noise: ``top1_vision_to_text``,
        ``top1_text_to_vision``, and ``cosine_vision`` and ``cosine_text`` between different classes.

        Args:
            output: the network's output; its embeddings and ``same_sentence`` are read.
            present: the classes of each sample that take part; None: all.  # B x N, bool
        """
        present = self._check(output, present)
        with no_autocast(output.vision_embeddings):
            vision = F.normalize(full_precision(output.vision_embeddings), dim=-1)
            concepts = F.normalize(full_precision(output.concept_embeddings), dim=-1)
            text = aggregate_concepts(vision, concepts)
            terms = self._watch(vision.detach(), text.detach(), present)
            loss = vision.new_zeros(())
            if self.global_weight > 0:
                term = _mean_over(present, self.global_loss(vision, text, present))
                loss = loss + self.global_weight * term
                terms["alignment_global"] = term.detach()
            if self.local_weight > 0 and concepts.shape[2] > 1:
                term = _mean_over(present, self.local_loss(vision, concepts, output.same_sentence, present))
                loss = loss + self.local_weight * term
                terms["alignment_local"] = term.detach()
        return loss, terms

    def global_loss(self, vision: Tensor, text: Tensor, present: Tensor) -> Tensor:
        """Compute the global InfoNCE of each class, equations 5 and 6, before the mean over classes.  # B x N"""
        similarity = self._perturb(vision) @ self._perturb(text).mT  # B x N (vision) x N (text)
        return info_nce(_both_ways(similarity), present.unsqueeze(-2), self.temperature).mean(dim=0)

    def local_loss(self, vision: Tensor, concepts: Tensor, same_sentence: Tensor, present: Tensor) -> Tensor:
        """Compute the local InfoNCE of each class, equations 7 and 8, before the mean over classes.  # B x N"""
        similarity = einsum(vision, concepts, "b i p, b j k p -> b k i j")
        different = ~rearrange(same_sentence.bool(), "i j k -> k i j")
        negatives = different & rearrange(present, "b j -> b 1 1 j")
        losses = info_nce(_both_ways(similarity), negatives, self.temperature, self.hard_negatives)
        return losses.mean(dim=(0, 2))

    def _perturb(self, embeddings: Tensor) -> Tensor:
        if not self.training or self.noise == 0:
            return embeddings
        return F.normalize(embeddings + self.noise * torch.randn_like(embeddings), dim=-1)

    @staticmethod
    def _watch(vision: Tensor, text: Tensor, present: Tensor) -> dict[str, Tensor]:
        rivals = rival_pairs(present)
        accuracies = top1_accuracy(_both_ways(vision @ text.mT), rivals)
        cosines = mean_cosine(torch.stack([vision, text]), rivals)
        names = ("top1_vision_to_text", "top1_text_to_vision", "cosine_vision", "cosine_text")
        return dict(zip(names, (*accuracies, *cosines), strict=True))

    def _check(self, output: BiPVLOutput, present: Tensor | None) -> Tensor:
        """The mask of the classes that take part; raises where the shapes disagree."""
        vision, concepts, same = output.vision_embeddings, output.concept_embeddings, output.same_sentence
        batch, classes, kinds, width = concepts.shape
        if tuple(vision.shape) != (batch, classes, width) or tuple(same.shape) != (classes, classes, kinds):
            raise ValueError(
                f"Concept embeddings of shape {(batch, classes, kinds, width)} (B x N x K x P) need vision "
                f"embeddings {(batch, classes, width)} and same_sentence {(classes, classes, kinds)}, got "
                f"{tuple(vision.shape)} and {tuple(same.shape)}."
            )
        if kinds == 1 and self.local_weight > 0 and self.global_weight == 0:
            raise ValueError(
                "The classes have one sentence each, where only the global alignment applies, but "
                "`global_weight` is 0. Give it a weight, or describe the classes by several concepts."
            )
        if present is None and not self.present_only:
            return torch.ones(batch, classes, dtype=torch.bool, device=vision.device)
        if present is None or tuple(present.shape) != (batch, classes):
            found = "none" if present is None else f"one of shape {tuple(present.shape)}"
            raise ValueError(
                f"The mask of the classes that take part, as `present_only` needs it, has shape {(batch, classes)}; "
                f"got {found}. Pass it to the loss, or set `present_only` to false."
            )
        return present.bool()


def aggregate_concepts(vision: Tensor, concepts: Tensor) -> Tensor:
    """Average the concept embeddings of each class, weighted by their cosine to its image embedding: T of equation 4.

    Args:
        vision: V'.  # B x N x P
        concepts: t'_k.  # B x N x K x P
    """
    weights = einsum(vision, concepts, "b n p, b n k p -> b n k").softmax(dim=-1)
    return F.normalize(einsum(weights, concepts, "b n k, b n k p -> b n p"), dim=-1)


def _both_ways(similarity: Tensor) -> Tensor:
    """Similarities of images to texts and of texts to images, in one tensor.  # 2 x ... x N x N"""
    return torch.stack([similarity, similarity.mT])


def _mean_over(present: Tensor, losses: Tensor) -> Tensor:
    """The mean over the classes that are present, then over the samples.  # B x N"""
    counts = present.sum(dim=-1).clamp_min(1)
    return ((losses * present).sum(dim=-1) / counts).mean()
