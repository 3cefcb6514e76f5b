"""Segmentation head whose class kernels are made of the classes' words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor, nn


class WordHead(nn.Module):
    """Segmentation head that computes one logit per class and voxel by kernels made of the classes' words.

    ::

        T_i = mean over the concepts of class i of its [CLS] states
        (theta_i, b_i) = MLP(LN(T_i - c))
        logit_i(x) = theta_i . F(x) / sqrt(C_f) + b_i

    F the image features, C_f their channels, c the centre of the sentences, a buffer. The background has a kernel of
    its own, learnt like any other parameter: nothing is written about it. No parameter depends on the number, the order
    or the names of the classes, so that the same weights segment any classes that are described.

    [CLS] states of a BERT share a common direction, which would give all classes nearly the same kernel in the
    beginning: ``centre_on`` takes the mean of a table's states away, once, before training.

    Args:
        text_channels: D.
        feature_channels: C_f.
        background: whether the first logit is the background's, as where classes exclude each other.

    Source:
        Not in the paper, whose output channels are fixed. Kernels from text: "CLIP-Driven Universal Model" (Liu et al.,
        2023), by way of "Conditional convolutions for instance segmentation" (Tian et al., 2020).
    """

    centre: Tensor  # D

    def __init__(self, text_channels: int, feature_channels: int, *, background: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(text_channels)
        self.mlp = nn.Sequential(
            nn.Linear(text_channels, text_channels),
            nn.GELU(),
            nn.Linear(text_channels, feature_channels + 1),
        )
        self.background = nn.Parameter(0.02 * torch.randn(feature_channels + 1)) if background else None
        self.register_buffer("centre", torch.zeros(text_channels))

    @torch.no_grad()
    def centre_on(self, states: Tensor) -> None:
        """Set the centre to the mean of a table's sentences.

        Args:
            states: their [CLS] states, ... x D
        """
        self.centre.copy_(states.flatten(0, -2).mean(dim=0))

    def kernels(self, states: Tensor, kept: Tensor) -> Tensor:
        """Return theta_i and b_i of the classes, the background's first if there is one.

        Args:
            states: the [CLS] states of the classes' sentences, n x K x D
            kept: True on those that count, at least one a class, n x K

        Returns:
            C x (C_f + 1)
        """
        weights = kept.to(states.dtype) / kept.sum(dim=1, keepdim=True)
        classes = einsum(weights, states, "n k, n k d -> n d")
        kernels = self.mlp(self.norm(classes - self.centre))
        return kernels if self.background is None else torch.cat([self.background[None], kernels])

    def forward(self, features: Tensor, kernels: Tensor) -> Tensor:
        """Compute logits (B x C x H x W x D) from image features (B x C_f x H x W x D) and ``kernels``."""
        return class_logits(features, kernels)


def class_logits(features: Tensor, kernels: Tensor) -> Tensor:
    """Compute theta_i . F(x) / sqrt(C_f) + b_i: B x C x H x W x D from B x C_f x H x W x D and C x (C_f + 1)."""
    weight = kernels[:, :-1] / features.shape[1] ** 0.5
    return F.conv3d(features, weight[..., None, None, None], kernels[:, -1])
