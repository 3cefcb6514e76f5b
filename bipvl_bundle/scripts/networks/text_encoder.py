"""A BERT divided into four stages, so that text and image can be fused after each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as run_again
from transformers import AutoTokenizer

from scripts.networks.bert import embed, layers_of, load_bert, new_bert, place_of, read_config, run_layer
from scripts.networks.joint_linear import JointLinear
from scripts.networks.packing import PackedSentences
from scripts.trust.digests import check_sums

_STAGES = 4


class StagedTextEncoder(nn.Module):
    """Text encoder: embeddings and layers of a Hugging Face BERT, run one stage at a time.

    Sentences are packed: padding is not computed, and attention does not see it.

    Args:
        checkpoint: a Hugging Face model name, "NAME@COMMIT" to pin its revision, or a local folder in that format,
            weights and tokenizer.
        stage_layers: how many layers each of the four stages has; the paper cuts BERT-base into
            layers 1-6, 7-8, 9-10 and 11-12.
        pretrained: False takes only configuration and tokenizer from ``checkpoint``; for networks whose
            weights come from a checkpoint of their own.
        dropout: overrides the checkpoint's dropout rates; None keeps them.
        recompute: whether a layer keeps only its input in training and computes the rest again in the backward
            pass: the same result with less memory and more time.

    Raises:
        FileNotFoundError: ``checkpoint`` is neither a folder nor a model that can be downloaded.
        ValueError: it is not a BERT, lacks weights of the encoder, has weights of another shape, or has
            another depth than ``stage_layers`` adds up to; a file of the folder is not what its SHA256SUMS says.

    Source:
        BiPVL-Seg, section 3.1, "Text Encoder".
    """

    def __init__(
        self,
        checkpoint: str,
        *,
        stage_layers: Sequence[int] = (6, 2, 2, 2),
        pretrained: bool = True,
        dropout: float | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if Path(checkpoint).is_dir():
            check_sums(Path(checkpoint))
        config = read_config(checkpoint)
        if dropout is not None:
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
        if len(stage_layers) != _STAGES or min(stage_layers) < 1:
            raise ValueError(f"`stage_layers` needs {_STAGES} positive numbers; found {list(stage_layers)}.")
        if sum(stage_layers) != config.num_hidden_layers:
            raise ValueError(
                f"`stage_layers` {list(stage_layers)} adds up to {sum(stage_layers)} layers, but the text "
                f"encoder '{checkpoint}' has {config.num_hidden_layers}. Choose a split that adds up to that."
            )
        bert = load_bert(checkpoint, config) if pretrained else new_bert(config)
        self.checkpoint = str(checkpoint)
        self.recompute = recompute
        self.tokenizer = AutoTokenizer.from_pretrained(**place_of(checkpoint), config=config)
        self.channels: int = config.hidden_size
        self.max_tokens: int = config.max_position_embeddings
        self.embeddings = bert.embeddings
        layers = iter(layers_of(bert))
        self.stages = nn.ModuleList(nn.ModuleList(next(layers) for _ in range(n)) for n in stage_layers)
        self._joints = [[JointLinear() for _ in range(n)] for n in stage_layers]

    def tokenize(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Turn sentences into token ids and attention mask (True on tokens), both S x L.

        Raises:
            ValueError: a sentence has more tokens than the encoder has positions.
        """
        tokens = self.tokenizer(list(sentences), padding=True, return_tensors="pt", verbose=False)
        mask = tokens["attention_mask"].bool()
        lengths = mask.sum(dim=1)
        if int(lengths.max()) > self.max_tokens:
            worst = sentences[int(lengths.argmax())]
            raise ValueError(
                f"The text encoder '{self.checkpoint}' reads at most {self.max_tokens} tokens a sentence; this "
                f"one has {int(lengths.max())}: '{worst[:80]}...'. Shorten it in the concept table."
            )
        return tokens["input_ids"], mask

    def unknown_share(self, sentences: Sequence[str]) -> float:
        """Return which share of the words' tokens the vocabulary does not have ([UNK]), from 0 to 1."""
        tokens = self.tokenizer(list(sentences), add_special_tokens=False)["input_ids"]
        flat = [token for sentence in tokens for token in sentence]
        return flat.count(self.tokenizer.unk_token_id) / max(1, len(flat))

    def embed(self, sentences: PackedSentences) -> Tensor:
        """Embed the tokens of packed sentences; returns 1 x T x D."""
        return embed(self.embeddings, sentences)

    def run_stage(self, stage: int, hidden: Tensor, sentences: PackedSentences, *, cls_only: bool = False) -> Tensor:
        """Run the layers of one stage.

        Args:
            stage: 1 to 4
            hidden: the row of tokens, B x T x D
            sentences: how they are packed, U different ones
            cls_only: whether nothing but the [CLS] states of the result is read; the last layer computes no others.

        Returns:
            B x T x D, or B x U x D with ``cls_only``
        """
        layers = list(cast(nn.ModuleList, self.stages[stage - 1]))
        again = self.recompute and self.training and torch.is_grad_enabled()
        for layer, joint in zip(layers, self._joints[stage - 1], strict=True):
            arguments = (layer, hidden, sentences, cls_only and layer is layers[-1], joint)
            hidden = run_again(run_layer, *arguments, use_reentrant=False) if again else run_layer(*arguments)
        return hidden
