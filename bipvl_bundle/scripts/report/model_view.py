"""What a trained network makes of its words: states of the sentences, alignment, attention of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from scripts.losses.alignment import aggregate_concepts
from scripts.networks.attention import Attention
from scripts.networks.bifusion import BiFusion
from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.networks.packing import PackedSentences
from scripts.networks.reading import STAGES
from scripts.networks.text_encoder import StagedTextEncoder

Array = NDArray[np.float32]


@torch.no_grad()
def sentence_states(encoder: StagedTextEncoder, sentences: Sequence[str]) -> Array:
    """Return the last [CLS] state of each sentence, read without an image.  # S x D"""
    device = next(encoder.parameters()).device
    packed = PackedSentences(*encoder.tokenize(sentences)).to(device)
    hidden = encoder.embed(packed)
    for stage in STAGES:
        hidden = encoder.run_stage(stage, hidden, packed, cls_only=stage == STAGES[-1])
    return packed.cls(hidden)[0].float().cpu().numpy()


def untrained_encoder(network: BiPVLSeg) -> StagedTextEncoder:
    """Return the network's text encoder as it was before training.

    Raises:
        OSError: its folder is no longer there, or its model cannot be downloaded.
    """
    layers = [len(cast(nn.ModuleList, stage)) for stage in network.text_encoder.stages]
    return StagedTextEncoder(network.text_encoder.checkpoint, stage_layers=layers).eval()


@torch.no_grad()
def similarities(network: BiPVLSeg, image: Tensor) -> Array:
    """Return the cosines of V_i and T_j of eq. 5, and of V_i and t_jk of eq. 7 for each concept, without noise.

    Shapes: image 1 x in_channels x H x W x D, to (1 + K) x N x N, the global matrix first, images in rows.
    """
    output = network.examine(image)
    vision, concepts = output.vision_embeddings, output.concept_embeddings
    text = aggregate_concepts(vision, concepts)
    matrices = [vision @ text.mT, *(vision @ concepts[:, :, k].mT for k in range(concepts.shape[2]))]
    return torch.cat(matrices).float().cpu().numpy()


@torch.no_grad()
def attention_maps(network: BiPVLSeg, image: Tensor) -> dict[int, Array]:
    """Return how much each place of the image attends to each sentence, by fused stage, averaged over the heads.

    These are the weights of CA(V'_n, T^_n) of eq. 2: at each place they add up to 1 over the sentences.

    Shapes: image 1 x in_channels x H x W x D, to S x h x w x d for each stage.

    Raises:
        ValueError: all tokens are fused, so that no weight belongs to a sentence.
    """
    if network.fuse_all_tokens:
        raise ValueError("`fuse_all_tokens` is set: the image attends to words and not to sentences.")
    with _recorded(network) as seen:
        network.features(image)
    return dict(sorted(seen.items()))


@contextmanager
def _recorded(network: BiPVLSeg) -> Iterator[dict[int, Array]]:
    """Context manager in which the cross-attention of every BiFusion block leaves its weights in a dictionary."""
    found: dict[int, Array] = {}
    hooks = []
    for stage in network.fused_stages:
        block = cast(BiFusion, network.fusions[str(stage - 1)])
        grids: list[Sequence[int]] = []

        def remember(_: nn.Module, inputs: tuple[Tensor, Tensor], grids: list[Sequence[int]] = grids) -> None:
            grids.append(inputs[1].shape[2:])

        def weigh(
            module: nn.Module, inputs: tuple[Tensor, Tensor], stage: int = stage, grids: list[Sequence[int]] = grids
        ) -> None:
            h, w, d = grids[-1]
            weights = mean_weights(cast(Attention, module), *inputs)[0]
            found[stage] = rearrange(weights, "(h w d) s -> s h w d", h=h, w=w, d=d).float().cpu().numpy()

        hooks += [
            block.register_forward_pre_hook(remember),
            block.vision_cross_attention.register_forward_pre_hook(weigh),
        ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def mean_weights(attention: Attention, tokens: Tensor, context: Tensor) -> Tensor:
    """Return softmax(Q K^T / sqrt(head width)), averaged over the heads, a head at a time.

    Shapes: B x M x C and B x S x C, to B x M x S.
    """
    query, key = (
        rearrange(x, "b n (h c) -> h b n c", h=attention.num_heads)
        for x in (attention.query(tokens), attention.key(context))
    )
    total = torch.zeros(())
    for q, k in zip(query, key, strict=True):
        total = total.to(q.device) + (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return total / attention.num_heads


@dataclass(frozen=True)
class Attended:
    """How much a stage's attention to the sentences of each class says.

    Attributes:
        stage: 1 to 4.
        entropy: mean entropy of the weights of a place over the S sentences, as a share of log S: 1.00 where all
            sentences get the same.
        contrast: standard deviation of a sentence's weight over the image as a share of its mean, on average: 0.00
            where it is everywhere the same.
        inside: weight of a class's own sentences in its own mask as a multiple of that outside it, by class; NaN
            where the mask is empty or everything.
    """

    stage: int
    entropy: float
    contrast: float
    inside: tuple[float, ...]

    @property
    def tells(self) -> bool:
        """Whether the weight is higher in the own mask than elsewhere, by a tenth at least for half of the classes."""
        known = [ratio for ratio in self.inside if not np.isnan(ratio)]
        return bool(known) and float(np.mean([ratio >= 1.1 for ratio in known])) >= 0.5


def attended(stage: int, maps: Array, masks: Array) -> Attended:
    """Measure the maps of a stage.

    Args:
        stage: 1 to 4
        maps: S = N * K sentences, class by class.  # S x h x w x d
        masks: share of each cell that is of the class.  # N x h x w x d
    """
    total = maps.sum(axis=0, keepdims=True)
    shares = np.clip(maps / total, 1e-12, 1)
    entropy = float((-shares * np.log(shares)).sum(axis=0).mean() / np.log(max(len(maps), 2)))
    flat = maps.reshape(len(maps), -1)
    contrast = float((flat.std(axis=1) / flat.mean(axis=1)).mean())
    own = rearrange(maps, "(n k) h w d -> n k (h w d)", n=len(masks)).mean(axis=1)
    inside = []
    for weights, mask in zip(own, masks.reshape(len(masks), -1), strict=True):
        part, rest = mask.sum(), (1 - mask).sum()
        known = part > 0 and rest > 0
        inside.append(float((weights * mask).sum() / part / ((weights * (1 - mask)).sum() / rest)) if known else np.nan)
    return Attended(stage, entropy, contrast, tuple(inside))


def as_record(found: Attended, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the measures of a stage as a row of a table."""
    ratios = {f"inside {name}": f"{ratio:.3f}" for name, ratio in zip(class_names, found.inside, strict=True)}
    shown = {"entropy": f"{found.entropy:.3f}", "contrast": f"{found.contrast:.3f}"}
    return {"stage": found.stage, **shown, **ratios, "tells": "yes" if found.tells else "no"}
