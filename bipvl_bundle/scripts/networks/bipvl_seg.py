"""BiPVL-Seg: a segmentation network of an encoder-decoder and a BERT, fused after each encoder stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import cast

from einops import rearrange
from torch import Tensor, nn

from scripts.networks.asked_words import AskedWords, warn_of_unknown_words
from scripts.networks.backbones.base import FusableBackbone
from scripts.networks.bifusion import TOKEN_BUDGET, BiFusion
from scripts.networks.class_embedding import (
    AlignmentProjection,
    ClassEmbeddingHead,
    WordAlignmentProjection,
    WordClassEmbedding,
)
from scripts.networks.kept import Kept
from scripts.networks.memory import WordMemory
from scripts.networks.outputs import AskedClasses, BiPVLOutput
from scripts.networks.packing import PackedSentences
from scripts.networks.reading import STAGES, Reading, TextPath, block_name
from scripts.networks.text_encoder import StagedTextEncoder
from scripts.networks.word_head import WordHead
from scripts.words.questions import Question, QuestionSampler
from scripts.words.table import ConceptTable

HEADS = ("words", "channels")
LEFT_TO_RIGHT = 2  # the axis of a batch of images in RAS orientation


class BiPVLSeg(nn.Module):
    """Segmentation network guided by text: BiFusion blocks between the four stages of a backbone and a text encoder.

    N foreground classes, each described by K sentences, are N * K sentences for the text encoder. Their
    [CLS] states are the text tokens T_n that BiFusion sees at stage n; the fused ones go back into their
    sentences before the next layers. The fused image features go on to the next stage, the skips and the bottleneck.

    What becomes of the backbone's output depends on the head:

    - "words": it is a map of features, and each class has a kernel that is made of its own words (``WordHead``). What
      is written about a class decides what is segmented; any classes can be asked for. The sentences that BiFusion sees
      are those of the table that the network has learnt from, its context, whatever is asked for: so a class's mask
      depends on its own words and on no other class, but for the competition of the logits.
    - "channels": it is one channel per class, as published. The words of a class are bound to its channel by the
      alignment loss alone.

    In evaluation ``forward`` returns the logits (B x C x H x W x D), in training a ``BiPVLOutput``.

    Deviations:
        - The head "words" is not in the paper; with it, kernels and alignment read the sentences without the image.
        - Stages include their downsampling (the paper's H/2^n would put 48^3 tokens into the first one).
        - One text pass serves fusion and alignment, with the head "channels".
        - Up to the first fusion the text does not depend on the image: its stages until there run once a
          batch. In evaluation without gradients their result is kept until weights or words change.
        - Equal sentences are read once, and padding is not (see ``PackedSentences``): the same result, but that
          equal sentences share the draws of BERT's dropout.

    A state dict remembers what the network has learnt from, see ``WordMemory``.

    Args:
        backbone: the encoder-decoder, behind its adapter. With the head "words" it may have any number of output
            channels, say 16; with "channels" one for each class, and the background where ``softmax``.
        text_encoder: the staged BERT.
        concepts: the words, one class per foreground channel, in label order.
        head: "words" or "channels".
        softmax: True where classes exclude each other (softmax, background first), False where regions
            overlap (sigmoid, no background).
        fused_stages: the stages after which text and image meet, out of 1 to 4; the others have no block.
            ``[4]`` is late fusion. With none, words and image meet in the head and the alignment loss alone.
        fuse_all_tokens: BiFusion sees every token of every different sentence, not one [CLS] state a sentence.
        num_heads: attention heads of the BiFusion block of each of the four stages, fused or not.
        mlp_ratio: hidden width of BiFusion's MLPs, in multiples of the stage's channels.
        dropout: in BiFusion, in training.
        vision_self_attention: BiFusion's self-attention on the image, one switch or one per stage.
        self_attention_residual: around BiFusion's self-attentions; without it the network is not its backbone
            at initialisation.
        token_budget: to how many image tokens an image token attends at most, see ``BiFusion``.
        projection_channels: P, width of the shared space of the alignment.
        grid: with the head "channels", the class map is pooled to ``grid``^3 cells before its projection.

    Raises:
        ValueError: an unknown head; with the head "channels", a backbone that has not one output channel for each class
            (and the background); stages other than 1 to 4, or one twice; a list that has not one value for each stage.

    Source:
        BiPVL-Seg, section 3 and figure 2.
    """

    def __init__(
        self,
        backbone: FusableBackbone,
        text_encoder: StagedTextEncoder,
        concepts: ConceptTable,
        *,
        head: str = "words",
        softmax: bool = True,
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
        if head not in HEADS:
            raise ValueError(f"`head` must be one of {', '.join(HEADS)}, found {head!r}.")
        if isinstance(vision_self_attention, bool):
            vision_self_attention = [vision_self_attention] * len(STAGES)
        _check_stages(fused_stages, num_heads=num_heads, vision_self_attention=vision_self_attention)
        self.backbone = backbone
        self.text_encoder = text_encoder
        self.softmax = softmax
        self.questions: QuestionSampler | None = None
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
                    returns_text=head == "channels" or stage != max(fused_stages),
                )
                for stage in self.fused_stages
            }
        )
        self.word_head: WordHead | None = None
        width, bottleneck = text_encoder.channels, backbone.stage_channels[-1]
        if head == "words":
            self.word_head = WordHead(width, backbone.out_channels, background=softmax)
            self.class_embedding: nn.Module = WordClassEmbedding(bottleneck, width, background=softmax)
            self.projection: nn.Module = WordAlignmentProjection(backbone.stage_channels, width, projection_channels)
        else:
            _check_channels(backbone, concepts, softmax)
            self.class_embedding = ClassEmbeddingHead(bottleneck, backbone.out_channels)
            self.projection = AlignmentProjection(width, projection_channels=projection_channels, grid=grid)
        self.memory = WordMemory(concepts, classes_are_fixed=head == "channels")
        self._set_context(concepts.sentences_flat)
        self.set_concepts(concepts)

    def set_concepts(self, concepts: ConceptTable) -> None:
        """Replace the concept table that the network segments by; with the head "words" its classes too.

        Raises:
            ValueError: with the head "channels", the table has other classes than the network; a sentence is too long.
        """
        known = getattr(self, "concepts", concepts).classes
        if self.word_head is None and concepts.classes != known:
            raise ValueError(
                f"The network segments {list(known)}; the concept table {concepts.source} describes "
                f"{list(concepts.classes)}. With `head: channels` words can be edited, classes cannot: train a network "
                "for them, or one with `head: words`."
            )
        warn_of_unknown_words(concepts, self.text_encoder)
        self.concepts = concepts
        self.asked = self._ask(Question.whole(concepts))
        if self.word_head is None:
            self._set_context(concepts.sentences_flat)
        self._kept = Kept()

    def _set_context(self, sentences: Sequence[str]) -> None:
        packed = PackedSentences(*self.text_encoder.tokenize(sentences))
        self.context = packed.to(next(self.parameters()).device)

    def _ask(self, question: Question) -> AskedWords:
        return AskedWords(question, self.text_encoder).to(next(self.parameters()).device)

    def with_concepts(self, concepts: ConceptTable) -> BiPVLSeg:
        """Return a view of this network with the same weights and another concept table.

        Both have the same weights, not copies of them, so that this costs no more than reading the words. For
        evaluation: to train, or to move, either of them is to do so with both.

        Raises:
            ValueError: as for ``set_concepts``.
        """
        other = copy.copy(self)
        other._buffers, other._modules = dict(self._buffers), dict(self._modules)  # set_concepts replaces some
        other.set_concepts(concepts)
        return other

    def learn(self, concepts: ConceptTable, questions: QuestionSampler | None = None) -> None:
        """Prepare the network for training: remember a table's words, and centre the kernels of a new network on them.

        Args:
            concepts: the table of the training labels.
            questions: with the head "words", draws what each training step asks for; None asks for everything.

        Raises:
            ValueError: with the head "words", two classes have the same words.
        """
        self.questions = questions
        if self.word_head is not None:
            concepts.check_told_apart()
        self.memory.learn(concepts)
        if self.word_head is not None and not self.word_head.centre.any():
            states = self._read_words(self._ask(Question.whole(concepts))).detach()
            self.word_head.centre_on(states)
            cast(WordClassEmbedding, self.class_embedding).centre_on(states)

    def forward(self, image: Tensor, labelled: Sequence[Sequence[bool]] | None = None) -> Tensor | BiPVLOutput:
        """Segment a batch of images.

        Args:
            image: B x in_channels x H x W x D
            labelled: in training, for each sample, which classes of the concept table its labels show; None: all
        """
        return self._run(image, labelled, full=self.training)

    def examine(self, image: Tensor) -> BiPVLOutput:
        """Return what training sees of a batch of images, in evaluation: all classes, in their own words."""
        return cast(BiPVLOutput, self._run(image, None, full=True))

    def _run(self, image: Tensor, labelled: Sequence[Sequence[bool]] | None, *, full: bool) -> Tensor | BiPVLOutput:
        image = image.as_subclass(Tensor)
        if self.word_head is None:
            return self._with_channels(image, labelled, full)
        return self._with_words(image, self.word_head, labelled, full)

    def _with_channels(
        self, image: Tensor, labelled: Sequence[Sequence[bool]] | None, full: bool
    ) -> Tensor | BiPVLOutput:
        reading = Reading(self.text_path, batch=len(image), to_the_end=full)
        logits = self.backbone(image, reading.fuse)
        if not full:
            return logits
        class_map = self.class_embedding(reading.stages[-1])
        concepts = rearrange(reading.cls_states(), "b (n k) c -> b n k c", n=len(self.concepts.classes))
        vision, concepts = self.projection(class_map[:, int(self.softmax) :], concepts)
        question = None if labelled is None else self._target_of(self.asked, labelled)
        return BiPVLOutput(logits, class_map, vision, concepts, self.asked.same_sentence, question)

    def _with_words(
        self, image: Tensor, head: WordHead, labelled: Sequence[Sequence[bool]] | None, full: bool
    ) -> Tensor | BiPVLOutput:
        asked = self._next_question(labelled)
        context, begun = self._begin_together(asked)
        reading = Reading(self.text_path, batch=len(image), to_the_end=False, alone=context)
        features = self.backbone(image.flip(LEFT_TO_RIGHT) if asked.mirrored else image, reading.fuse)
        states = self._read_words(asked, begun)
        logits = head(features, head.kernels(states, asked.kept))
        if not full:
            return logits
        class_map = self.class_embedding(reading.stages[-1], states, asked.kept)
        probabilities = logits.detach().softmax(1)[:, 1:] if self.softmax else logits.detach().sigmoid()
        vision, concepts = self.projection(reading.stages, probabilities, states)
        question = self._target_of(asked, labelled)
        return BiPVLOutput(logits, class_map, vision, concepts, asked.same_sentence, question)

    def _target_of(self, asked: AskedWords, labelled: Sequence[Sequence[bool]] | None) -> AskedClasses:
        shown = None
        if labelled is not None and not all(map(all, labelled)):
            shown = tuple(tuple(bool(row[label]) for label in asked.classes) for row in labelled)
        return AskedClasses(asked.classes, len(self.concepts.classes), asked.mirrored, shown)

    def features(self, image: Tensor) -> Tensor:
        """Return the backbone's output for a batch of images, fused with the context: B x C_f x H x W x D.

        With the head "words" no class has any part in it.
        """
        image = image.as_subclass(Tensor)
        return self.backbone(image, Reading(self.text_path, batch=len(image), to_the_end=False).fuse)

    def class_kernels(self) -> Tensor | None:
        """Return the kernels of the present classes, C x (C_f + 1); None with the head "channels"."""
        if self.word_head is None:
            return None
        return self.word_head.kernels(self._read_words(self.asked), self.asked.kept)

    def _next_question(self, labelled: Sequence[Sequence[bool]] | None) -> AskedWords:
        if self.training and self.questions is not None:
            return self._ask(self.questions.draw(self.concepts, labelled))
        return self.asked

    def train(self, mode: bool = True) -> BiPVLSeg:
        """Set training or evaluation mode; training empties the cache of text states."""
        if mode:
            self._kept.forget()
        return super().train(mode)

    def read_alone(self) -> Tensor:
        """Return the states of the context's sentences before the first fusion, the same for every image.

        Returns:
            the packed tokens, 1 x T x D; after the fourth stage the U [CLS] states alone, unless all are fused
        """
        return self._keep("context", self.text_path.stages_alone, self._compute_alone)

    def _begin_together(self, asked: AskedWords) -> tuple[Tensor | None, Tensor | None]:
        """The states before the first fusion of the context and of what is asked; a sentence of both is read once."""
        if not self.training or not self.fused_stages:
            return None, None
        parts, device = (self.context, asked.sentences), self.context.token_ids.device
        both = PackedSentences.joined(*parts)
        hidden = self._read(both.to(device), range(1, self.text_path.stages_alone + 1))
        context, begun = (hidden.index_select(1, part.places_in(both).to(device)) for part in parts)
        return context, begun

    def _read(
        self, sentences: PackedSentences, stages: range, hidden: Tensor | None = None, *, cls_only: bool = False
    ) -> Tensor:
        """Run text stages without an image, from their input or from the embeddings; 1 x T x D, packed.

        With ``cls_only`` nothing but the [CLS] states of the fourth stage is read.
        """
        hidden = self.text_encoder.embed(sentences) if hidden is None else hidden
        for stage in stages:
            last = cls_only and stage == STAGES[-1]
            hidden = self.text_encoder.run_stage(stage, hidden, sentences, cls_only=last)
        return hidden

    def _read_words(self, asked: AskedWords, begun: Tensor | None = None) -> Tensor:
        """The last [CLS] states of the sentences that are asked in, read without an image, n x K x D.

        Args:
            asked: the sentences
            begun: their states before the first fusion, where they are known already
        """

        def compute() -> Tensor:
            first = 1 if begun is None else self.text_path.stages_alone + 1
            hidden = self._read(asked.sentences, range(first, len(STAGES) + 1), begun, cls_only=True)
            return rearrange(asked.sentences.cls(hidden), "1 (n k) c -> n k c", n=len(asked.classes))

        return self._keep("words", len(STAGES), compute) if asked is self.asked else compute()

    def _keep(self, name: str, stages: int, compute: Callable[[], Tensor]) -> Tensor:
        if self.training:
            return compute()
        return self._kept.get(name, [self.text_encoder.embeddings, *self.text_encoder.stages[:stages]], compute)

    @property
    def text_path(self) -> TextPath:
        """The parts of this network that a ``Reading`` of its context uses."""
        return TextPath(
            encoder=self.text_encoder,
            sentences=self.context,
            fusions=self.fusions,
            fused_stages=self.fused_stages,
            fuse_all_tokens=self.fuse_all_tokens,
            read_alone=self.read_alone,
        )

    def _compute_alone(self) -> Tensor:
        path = self.text_path
        cls_only = not path.fuses_all_tokens(STAGES[-1])
        return self._read(self.context, range(1, path.stages_alone + 1), cls_only=cls_only)

    def get_extra_state(self) -> Tensor:
        """Return the ``WordMemory`` for the state dict, as bytes in a tensor."""
        return self.memory.as_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Load the ``WordMemory`` of a checkpoint after comparing it with this network, and take over its context.

        Raises:
            ValueError: the checkpoint has another head, or, with the head "channels", other classes.
        """
        self.memory.recall(state, self.concepts)
        if self.word_head is not None:
            self._set_context(self.memory.context)
        self._kept.forget()


def _check_channels(backbone: FusableBackbone, concepts: ConceptTable, softmax: bool) -> None:
    expected = len(concepts.classes) + int(softmax)
    if backbone.out_channels != expected:
        raise ValueError(
            f"The concept table {concepts.source} names {len(concepts.classes)} classes, which needs "
            f"{expected} output channels{' with the background' if softmax else ''}; the backbone has "
            f"{backbone.out_channels}. Set `out_channels` to {expected}, or use the table of this data set."
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
