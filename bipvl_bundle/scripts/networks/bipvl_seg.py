"""BiPVL-Seg: an encoder-decoder and a BERT that read an image and its classes' words together."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from monai.data import MetaTensor
from torch import Tensor, nn

from scripts.networks.backbones.base import FusableBackbone
from scripts.networks.bifusion import TOKEN_BUDGET, BiFusion
from scripts.networks.class_embedding import AlignmentProjection, ClassEmbeddingHead
from scripts.networks.outputs import BiPVLOutput
from scripts.networks.packing import PackedSentences
from scripts.networks.reading import STAGES, Reading, TextPath, block_name
from scripts.networks.text_encoder import StagedTextEncoder
from scripts.words.table import ConceptTable


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
        - Up to the first fusion the text does not depend on the image: its stages until there run once a
          batch. In evaluation without gradients their result is kept until weights or words change.
        - Equal sentences are read once, and padding is not (see ``PackedSentences``): the same result, but that
          equal sentences share the draws of BERT's dropout.

    A state dict remembers the names of the classes and a digest of their sentences. Loading it into a
    network with other classes is an error, with other sentences for the same classes a warning.

    Args:
        backbone: the encoder-decoder, behind its adapter.
        text_encoder: the staged BERT.
        concepts: the words, one class per foreground channel, in label order.
        exclusive: True where classes exclude each other (softmax, background first), False where regions
            overlap (sigmoid, no background).
        fused_stages: the stages after which text and image meet, out of 1 to 4; the others have no block.
            ``[4]`` is late fusion. With none, words and image meet in the alignment loss alone, and in
            evaluation the text is not read.
        fuse_all_tokens: BiFusion sees every token of every different sentence, not one [CLS] state a sentence.
        num_heads: attention heads of the BiFusion block of each of the four stages, fused or not.
        mlp_ratio: hidden width of BiFusion's MLPs, in multiples of the stage's channels.
        dropout: in BiFusion, in training.
        vision_self_attention: BiFusion's self-attention on the image, one switch or one per stage.
        self_attention_residual: around BiFusion's self-attentions; without it the network is not its backbone
            at initialisation.
        token_budget: to how many image tokens an image token attends at most, see ``BiFusion``.
        projection_channels: P, width of the shared space of the alignment.
        grid: the class map is pooled to ``grid``^3 cells before its projection.

    Raises:
        ValueError: the backbone has not one output channel for each class (and the background); stages
            other than 1 to 4, or one twice; a list that has not one value for each stage.

    Source:
        BiPVL-Seg, section 3 and figure 2.
    """

    same_sentence: Tensor  # N x N x K

    def __init__(
        self,
        backbone: FusableBackbone,
        text_encoder: StagedTextEncoder,
        concepts: ConceptTable,
        *,
        exclusive: bool = True,
        fused_stages: Sequence[int] = STAGES,
        fuse_all_tokens: bool = False,
        num_heads: Sequence[int] = (3, 6, 12, 24),
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        vision_self_attention: bool | Sequence[bool] = True,
        self_attention_residual: bool = True,
        token_budget: int | None = TOKEN_BUDGET,
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
        if isinstance(vision_self_attention, bool):
            vision_self_attention = [vision_self_attention] * len(STAGES)
        _check_stages(fused_stages, num_heads=num_heads, vision_self_attention=vision_self_attention)
        self.backbone = backbone
        self.text_encoder = text_encoder
        self.exclusive = exclusive
        self.fused_stages = tuple(sorted(fused_stages))
        self.fuse_all_tokens = fuse_all_tokens
        self.fusions = nn.ModuleDict(
            {
                block_name(stage): BiFusion(
                    backbone.stage_channels[stage - 1],
                    text_encoder.channels,
                    num_heads=num_heads[stage - 1],
                    mlp_ratio=mlp_ratio,
                    dropout=dropout,
                    vision_self_attention=vision_self_attention[stage - 1],
                    self_attention_residual=self_attention_residual,
                    token_budget=token_budget,
                )
                for stage in self.fused_stages
            }
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
        self.sentences = PackedSentences(token_ids, mask).to(device)
        same = torch.as_tensor(concepts.same_sentence(), dtype=torch.bool, device=device)
        self.register_buffer("same_sentence", same, persistent=False)
        self._kept_text: tuple[Any, Tensor] | None = None

    def with_concepts(self, concepts: ConceptTable) -> BiPVLSeg:
        """This network, reading other words for the same classes; it keeps its own, whatever the other one does.

        Both have the same weights, not copies of them, so that this costs no more than reading the words. For
        evaluation: to train, or to move, either of them is to do so with both.

        Raises:
            ValueError: as for ``set_concepts``.
        """
        other = copy.copy(self)
        other._buffers, other._modules = dict(self._buffers), dict(self._modules)  # set_concepts replaces some
        other.set_concepts(concepts)
        return other

    def forward(self, image: Tensor) -> Tensor | BiPVLOutput:
        """Segment a batch of images (B x in_channels x H x W x D)."""
        if isinstance(image, MetaTensor):
            image = image.as_tensor()
        reading = Reading(self.text_path, batch=image.shape[0], to_the_end=self.training)
        logits = self.backbone(image, reading.fuse)
        if not self.training:
            return logits
        class_map = self.class_embedding(reading.features)
        concepts = rearrange(reading.cls_states(), "b (n k) c -> b n k c", n=len(self.concepts.classes))
        vision, concepts = self.projection(class_map[:, int(self.exclusive) :], concepts)
        return BiPVLOutput(logits, class_map, vision, concepts, self.same_sentence)

    def train(self, mode: bool = True) -> BiPVLSeg:
        """Set the mode; training forgets what evaluation has kept of the text."""
        if mode:
            self._kept_text = None
        return super().train(mode)

    def read_alone(self) -> Tensor:
        """The text stages up to the first fusion, which no image has touched.

        Returns:
            the packed tokens, 1 x T x D; after the fourth stage the U [CLS] states alone, unless all are fused
        """
        if self.training or torch.is_grad_enabled():
            return self._compute_alone()
        key = self._text_key()
        if self._kept_text is None or self._kept_text[0] != key:
            self._kept_text = (key, self._compute_alone())
        return self._kept_text[1]

    @property
    def text_path(self) -> TextPath:
        """What a ``Reading`` of this network's words goes through."""
        return TextPath(
            encoder=self.text_encoder,
            sentences=self.sentences,
            fusions=self.fusions,
            fused_stages=self.fused_stages,
            fuse_all_tokens=self.fuse_all_tokens,
            read_alone=self.read_alone,
        )

    def _compute_alone(self) -> Tensor:
        path = self.text_path
        hidden = self.text_encoder.embed(self.sentences)
        for stage in range(1, path.stages_alone + 1):
            cls_only = stage == STAGES[-1] and not path.fuses_all_tokens(stage)
            hidden = self.text_encoder.run_stage(stage, hidden, self.sentences, cls_only=cls_only)
        return hidden

    def _text_key(self) -> tuple[Any, ...]:
        """What the text stages before any image depend on; in-place changes of a weight count up its version.

        Changes through ``weight.data`` do not: after them, call ``train()`` or ``set_concepts``.
        """
        read = [self.text_encoder.embeddings, *self.text_encoder.stages[: self.text_path.stages_alone]]
        weights = [weight for module in read for weight in module.parameters()]
        versions = tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)
        device = self.same_sentence.device
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
        self._kept_text = None
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


def _check_stages(fused_stages: Sequence[int], **by_stage: Sequence[object]) -> None:
    if not set(fused_stages) <= set(STAGES) or len(set(fused_stages)) != len(fused_stages):
        raise ValueError(
            f"`fused_stages` lists stages out of {list(STAGES)}, each once; found {list(fused_stages)}. [4] is "
            "late fusion, [] no fusion."
        )
    for name, values in by_stage.items():
        if len(values) != len(STAGES):
            raise ValueError(
                f"`{name}` needs one value for each of the {len(STAGES)} stages, fused or not; found {list(values)}."
            )
