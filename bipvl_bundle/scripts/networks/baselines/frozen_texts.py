"""Vectors of a frozen text encoder, one a class, as a table that a network keeps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, BertModel, CLIPTextModelWithProjection

from scripts.networks.bert import load_bert, place_of, read_config, read_settings
from scripts.networks.memory import WordMemory
from scripts.trust.digests import check_sums
from scripts.words.sentences import aggregate
from scripts.words.table import ConceptTable

LONG_NAMES = {"CT": "computed tomography imaging", "MR": "magnetic resonance imaging"}
PLACES = ("{name}", "{modality}", "{text}")
BACKGROUND = "background"


class FrozenTexts(nn.Module):
    """A table of text vectors: one for each modality and class, never trained.

    It is in the state dict, so that a trained network needs no text encoder for the words that it was trained with. A
    checkpoint of the same classes with other sentences leaves the table as it was made here, and warns.

    Args:
        concepts: the words, one class a foreground channel, in label order.
        text_encoder: a CLIP or its text model, or a BERT: a folder, or a name on the hub. None for a network whose
            table comes from a checkpoint.
        prompt: what is read of a class; ``{name}``, ``{modality}`` and ``{text}`` (all of its sentences) are filled in.
        background: whether the first class is the background, a prompt of which ``{name}`` and ``{text}`` are
            "background".
        modalities: the modalities of the table; that of the concepts if None.
        width: of a vector, needed without a text encoder.

    Attributes:
        frozen_texts: modalities x classes x width.
        modality: the row of the concepts' modality.

    Raises:
        FileNotFoundError: the text encoder is not there.
        ValueError: the prompt has no place for a class, or another one; the text encoder is of another kind, lacks
            weights, or cannot read so long a prompt; the concepts' modality is none of ``modalities``.
    """

    frozen_texts: Tensor

    def __init__(
        self,
        concepts: ConceptTable,
        text_encoder: str | None,
        *,
        prompt: str = "{text}",
        background: bool = True,
        modalities: Sequence[str] | None = None,
        width: int | None = None,
    ) -> None:
        super().__init__()
        self.modalities = list(modalities or [concepts.modality])
        if concepts.modality not in self.modalities:
            raise ValueError(
                f"{concepts.source} describes {concepts.modality} images; `modalities` are {self.modalities}. Add it."
            )
        if text_encoder is None and width is None:
            raise ValueError("Without a `text_encoder` the `text_width` of its vectors must be given.")
        self.text_encoder, self.prompt, self.background = text_encoder, prompt, background
        self.memory = WordMemory(concepts, classes_are_fixed=True)
        self.register_buffer("frozen_texts", torch.zeros(len(self.modalities), 0, width or 0))
        self.read(concepts)

    def read(self, concepts: ConceptTable) -> None:
        """Read the words of a table of the same classes from now on."""
        self.concepts = concepts
        self.modality = self.modalities.index(concepts.modality)
        self.made_here: Tensor | None = None
        if self.text_encoder is None:
            shape = (len(self.modalities), len(concepts.classes) + self.background, self.frozen_texts.shape[-1])
            self.frozen_texts = self.frozen_texts.new_zeros(shape)
            return
        prompts = [text for name in self.modalities for text in self.prompts(concepts, name)]
        vectors = encode(self.text_encoder, prompts)
        self.made_here = vectors.unflatten(0, (len(self.modalities), -1))
        self.frozen_texts = self.made_here.clone().to(self.frozen_texts.device)

    def prompts(self, concepts: ConceptTable, modality: str) -> list[str]:
        """What is read of each class in images of a modality, the background first where it is one."""
        classes = [(name, aggregate(row)) for name, row in zip(concepts.classes, concepts.sentences, strict=True)]
        classes = [(BACKGROUND, BACKGROUND), *classes] if self.background else classes
        return [fill(self.prompt, name, LONG_NAMES.get(modality, modality), text) for name, text in classes]

    def reading(self, concepts: ConceptTable) -> FrozenTexts:
        """This table for other sentences of the same classes; the given one keeps its own.

        Raises:
            ValueError: there is no text encoder, or the classes are others.
        """
        if self.text_encoder is None or concepts.classes != self.concepts.classes:
            raise ValueError(
                f"The network reads the words of {list(self.concepts.classes)}; to read others of the same classes it "
                f"needs its `text_encoder` ({self.text_encoder}). Found {list(concepts.classes)}."
            )
        other = copy.copy(self)
        other._buffers = dict(self._buffers)
        other.read(concepts)
        return other

    def get_extra_state(self) -> Tensor:
        """The words as bytes in a tensor."""
        return self.memory.as_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Compare the words of a checkpoint with the table's.

        Raises:
            ValueError: the checkpoint has other classes.
        """
        self.memory.recall(state, self.concepts)
        if self.made_here is not None:  # edited sentences are to be read, and equal ones are read alike
            self.frozen_texts = self.made_here.clone().to(self.frozen_texts.device)


class ReadsFrozenTexts(nn.Module):
    """What the networks have in common that read a table of text vectors, under ``texts``."""

    texts: FrozenTexts

    @property
    def concepts(self) -> ConceptTable:
        """The words that the network reads."""
        return self.texts.concepts

    def learn(self, concepts: ConceptTable, questions: Any = None) -> None:
        """Remember the words of a training; questions, which other networks vary, are always for all classes."""
        self.texts.memory.learn(concepts)

    def with_concepts(self, concepts: ConceptTable) -> ReadsFrozenTexts:
        """This network, reading other sentences for the same classes, with the same weights.

        Raises:
            ValueError: as for `FrozenTexts.reading`.
        """
        other = copy.copy(self)
        other._modules = {**self._modules, "texts": self.texts.reading(concepts)}
        return other


def fill(prompt: str, name: str, modality: str, text: str) -> str:
    """Put a class's name, modality and sentences into a prompt.

    Raises:
        ValueError: the prompt has no place for the class, or another place.
    """
    rest = prompt
    for place in PLACES:
        rest = rest.replace(place, "")
    if "{" in rest or "}" in rest or not ("{name}" in prompt or "{text}" in prompt):
        raise ValueError(f"A `prompt` has {{name}} or {{text}}, and may have {{modality}}; found {prompt!r}.")
    for place, value in zip(PLACES, (name, modality, text), strict=True):
        prompt = prompt.replace(place, value)
    return prompt


@torch.no_grad()
def encode(checkpoint: str, texts: Sequence[str]) -> Tensor:
    """Encode texts by a CLIP (its projected text embedding, not normalised) or a BERT (its [CLS] state): N x width.

    The encoder is loaded, asked and let go.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is of another kind or incomplete, or a text is too long for it.
    """
    if Path(checkpoint).is_dir():
        check_sums(Path(checkpoint))
    kind = read_settings(checkpoint).get("model_type", "bert")
    encoder: Any = _load_clip(checkpoint) if kind.startswith("clip") else load_bert(checkpoint, read_config(checkpoint))
    tokens = AutoTokenizer.from_pretrained(**place_of(checkpoint))(
        list(texts), padding=True, return_tensors="pt", verbose=False
    )
    limit = encoder.config.max_position_embeddings
    if tokens["input_ids"].shape[1] > limit:
        longest = texts[int(tokens["attention_mask"].sum(dim=1).argmax())]
        raise ValueError(
            f"The text encoder '{checkpoint}' reads at most {limit} tokens; '{longest[:80]}...' has "
            f"{tokens['input_ids'].shape[1]}. Write a shorter `prompt`, such as one of {{name}} alone."
        )
    device = torch.device("cpu")  # whatever device the network around it is made on
    with device:
        output = encoder.eval()(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    vectors = output.last_hidden_state[:, 0] if isinstance(encoder, BertModel) else output.text_embeds
    return vectors.detach().float().clone()


def _load_clip(checkpoint: str) -> CLIPTextModelWithProjection:
    loaded: Any = CLIPTextModelWithProjection.from_pretrained(
        **place_of(checkpoint), dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    clip, report = loaded
    wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if wrong:
        raise ValueError(
            f"The text encoder '{checkpoint}' is incomplete: {len(wrong)} weights are missing or of another shape, "
            f"such as {wrong[0]}. They would start at random: use a complete CLIP that matches its config.json."
        )
    return clip
