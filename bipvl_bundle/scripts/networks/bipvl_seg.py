"""BiPVL-Seg: an encoder-decoder and a BERT that read an image and its classes' words together."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from monai.data import MetaTensor
from torch import Tensor, nn

from scripts.concepts import ConceptTable
from scripts.networks.backbones.base import FusableBackbone
from scripts.networks.bifusion import BiFusion
from scripts.networks.class_embedding import AlignmentProjection, ClassEmbeddingHead
from scripts.networks.outputs import BiPVLOutput
from scripts.networks.text_encoder import StagedTextEncoder


class BiPVLSeg(nn.Module):
    """Text-guided segmentation: four stages of BiFusion between a backbone and a text encoder.

    N foreground classes, each described by K sentences, are N * K sentences for the text encoder. Their
    [CLS] states are the text tokens T_n that BiFusion sees at stage n; the fused ones go back into their
    sentences before the next layers, and those of the last stage are the t_k of the alignment. The fused
    image features go on to the next stage, the skips and the bottleneck.

    In evaluation ``forward`` returns the logits (B x C x H x W x D), in training a ``BiPVLOutput``.

    Deviations:
        - Stages include their downsampling (the paper's H/2^n would put 48^3 tokens into the first one).
        - One text pass serves fusion and alignment.
        - Before the first fusion the text does not depend on the image: its first stage runs once a
          batch. In evaluation without gradients its result is kept until weights or words change.

    A state dict remembers the names of the classes and a digest of their sentences. Loading it into a
    network with other classes is an error, with other sentences for the same classes a warning.

    Args:
        backbone: the encoder-decoder, behind its adapter.
        text_encoder: the staged BERT.
        concepts: the words, one class per foreground channel, in label order.
        exclusive: True where classes exclude each other (softmax, background first), False where regions
            overlap (sigmoid, no background).
        num_heads: attention heads of the BiFusion block of each stage.
        mlp_ratio: hidden width of BiFusion's MLPs, in multiples of the stage's channels.
        dropout: in BiFusion, in training.
        vision_self_attention: BiFusion's self-attention on the image, one switch or one per stage.
        projection_channels: P, width of the shared space of the alignment.
        grid: the class map is pooled to ``grid``^3 cells before its projection.

    Raises:
        ValueError: the backbone has not one output channel for each class (and the background).

    Source:
        BiPVL-Seg, section 3 and figure 2.
    """

    token_ids: Tensor  # N*K x L
    token_mask: Tensor  # N*K x L, True on tokens
    same_sentence: Tensor  # N x N x K

    def __init__(
        self,
        backbone: FusableBackbone,
        text_encoder: StagedTextEncoder,
        concepts: ConceptTable,
        *,
        exclusive: bool = True,
        num_heads: Sequence[int] = (3, 6, 12, 24),
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        vision_self_attention: bool | Sequence[bool] = True,
        projection_channels: int = 128,
        grid: int = 3,
    ) -> None:
        super().__init__()
        expected = len(concepts.classes) + int(exclusive)
        if backbone.out_channels != expected:
            raise ValueError(
                f"The concept table {concepts.source} names {len(concepts.classes)} classes, which needs "
                f"{expected} output channels{' with the background' if exclusive else ''}; the backbone has "
                f"{backbone.out_channels}. Set `out_channels` to {expected}, or use the table of this data set."
            )
        stages = len(backbone.stage_channels)
        if isinstance(vision_self_attention, bool):
            vision_self_attention = [vision_self_attention] * stages
        self.backbone = backbone
        self.text_encoder = text_encoder
        self.exclusive = exclusive
        self.fusions = nn.ModuleList(
            BiFusion(
                channels,
                text_encoder.channels,
                num_heads=heads,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                vision_self_attention=attend,
            )
            for channels, heads, attend in zip(backbone.stage_channels, num_heads, vision_self_attention, strict=True)
        )
        self.class_embedding = ClassEmbeddingHead(backbone.stage_channels[-1], backbone.out_channels)
        self.projection = AlignmentProjection(text_encoder.channels, projection_channels=projection_channels, grid=grid)
        self.set_concepts(concepts)

    def set_concepts(self, concepts: ConceptTable) -> None:
        """Let the network read other words for the same classes, from the next forward on.

        Raises:
            ValueError: the table has other classes than the network, or a sentence is too long.
        """
        known = getattr(self, "concepts", concepts).classes
        if concepts.classes != known:
            raise ValueError(
                f"The network segments {list(known)}; the concept table {concepts.source} describes "
                f"{list(concepts.classes)}. Words can be edited, classes cannot: train a network for them."
            )
        device = next(self.parameters()).device
        token_ids, mask = self.text_encoder.tokenize(concepts.sentences_flat)
        self.concepts = concepts
        self.register_buffer("token_ids", token_ids.to(device), persistent=False)
        self.register_buffer("token_mask", mask.to(device), persistent=False)
        same = torch.as_tensor(concepts.same_sentence(), dtype=torch.bool, device=device)
        self.register_buffer("same_sentence", same, persistent=False)
        self._kept_stage1: tuple[Any, Tensor] | None = None

    def forward(self, image: Tensor) -> Tensor | BiPVLOutput:
        """Segment a batch of images (B x in_channels x H x W x D)."""
        if isinstance(image, MetaTensor):
            image = image.as_tensor()
        reading = _Reading(self, batch=image.shape[0])
        logits = self.backbone(image, reading.fuse)
        if not self.training:
            return logits
        class_map = self.class_embedding(reading.features)
        vision, concepts = self.projection(class_map[:, int(self.exclusive) :], reading.concepts())
        return BiPVLOutput(logits, class_map, vision, concepts, self.same_sentence)

    def train(self, mode: bool = True) -> BiPVLSeg:
        """Set the mode; training forgets what evaluation has kept of the text."""
        if mode:
            self._kept_stage1 = None
        return super().train(mode)

    def read_stage1(self) -> Tensor:
        """The first text stage, which no image has touched: N*K x L x D."""
        if self.training or torch.is_grad_enabled():
            return self._compute_stage1()
        key = self._stage1_key()
        if self._kept_stage1 is None or self._kept_stage1[0] != key:
            self._kept_stage1 = (key, self._compute_stage1())
        return self._kept_stage1[1]

    def _compute_stage1(self) -> Tensor:
        return self.text_encoder.run_stage(1, self.text_encoder.embed(self.token_ids), self.token_mask)

    def _stage1_key(self) -> tuple[Any, ...]:
        """What the first text stage depends on; in-place changes of a weight count up its version.

        Changes through ``weight.data`` do not: after them, call ``train()`` or ``set_concepts``.
        """
        weights = [*self.text_encoder.embeddings.parameters(), *self.text_encoder.stages[0].parameters()]
        versions = tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)
        device = self.token_ids.device
        autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        return versions, weights[0].dtype, device, autocast

    def get_extra_state(self) -> Tensor:
        """The classes and the digest of their sentences, as bytes in a tensor."""
        memory = {"classes": list(self.concepts.classes), "digest": self.concepts.digest}
        return torch.tensor(list(json.dumps(memory).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compare what a checkpoint was trained with to this network.

        Raises:
            ValueError: the checkpoint was trained for other classes.
        """
        self._kept_stage1 = None
        memory = json.loads(bytes(state.tolist()).decode())
        if memory["classes"] != list(self.concepts.classes):
            raise ValueError(
                f"The checkpoint was trained for {len(memory['classes'])} classes, {memory['classes']}; the "
                f"concept table {self.concepts.source} has {len(self.concepts.classes)}, "
                f"{list(self.concepts.classes)}. Use the checkpoint and the table of the same data set."
            )
        if memory["digest"] != self.concepts.digest:
            warnings.warn(
                f"The sentences in {self.concepts.source} are not those that the checkpoint was trained "
                "with. The classes are the same, so it is used, with the sentences of the table.",
                stacklevel=2,
            )


class _Reading:
    """The sentences on their way through the text stages during one forward pass."""

    def __init__(self, network: BiPVLSeg, batch: int) -> None:
        self.network = network
        self.batch = batch
        self.hidden = network.read_stage1()  # S x L x D, S = N * K; from the first fusion on B*S x L x D
        self.mask = network.token_mask
        self.features: Tensor | None = None

    def fuse(self, stage: int, features: Tensor) -> Tensor:
        """Read on to the end of a stage, then fuse it with the image features of that stage."""
        if stage > 1:
            self.hidden = self.network.text_encoder.run_stage(stage, self.hidden, self.mask)
        else:
            self.hidden = self.hidden.repeat(self.batch, 1, 1)
            self.mask = self.mask.repeat(self.batch, 1)
        text = rearrange(self.hidden[:, 0], "(b s) c -> b s c", b=self.batch)
        vision = rearrange(features, "b c h w d -> b (h w d) c")
        text, vision = self.network.fusions[stage - 1](text, vision)
        fused_cls = rearrange(text, "b s c -> (b s) 1 c").to(self.hidden.dtype)
        self.hidden = torch.cat([fused_cls, self.hidden[:, 1:]], dim=1)
        height, width, depth = features.shape[2:]
        self.features = rearrange(vision, "b (h w d) c -> b c h w d", h=height, w=width, d=depth)
        return self.features

    def concepts(self) -> Tensor:
        """The fused [CLS] states after the last stage: B x N x K x D."""
        classes = len(self.network.concepts.classes)
        return rearrange(self.hidden[:, 0], "(b n k) c -> b n k c", b=self.batch, n=classes)
