"""A BERT cut into four stages, so that text and image can meet after each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as run_again
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedConfig

from scripts.messages.phrases import first_lines
from scripts.networks.packing import PackedSentences
from scripts.trust.digests import check_sums

_STAGES = 4


class StagedTextEncoder(nn.Module):
    """Embeddings and layers of a Hugging Face BERT, run one stage at a time.

    Sentences are packed: padding is not computed, and attention does not see it.

    Args:
        checkpoint: a Hugging Face model name or a local folder in that format, weights and tokenizer.
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
        config = _bert_config(checkpoint)
        if dropout is not None:
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
        if len(stage_layers) != _STAGES or min(stage_layers) < 1:
            raise ValueError(f"`stage_layers` needs {_STAGES} positive numbers; found {list(stage_layers)}.")
        if sum(stage_layers) != config.num_hidden_layers:
            raise ValueError(
                f"`stage_layers` {list(stage_layers)} adds up to {sum(stage_layers)} layers, but the text "
                f"encoder '{checkpoint}' has {config.num_hidden_layers}. Choose a split that adds up to that."
            )
        bert = _load_bert(checkpoint, config) if pretrained else BertModel(config, add_pooling_layer=False)
        self.checkpoint = str(checkpoint)
        self.recompute = recompute
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, config=config)
        self.channels: int = config.hidden_size
        self.max_tokens: int = config.max_position_embeddings
        self.embeddings = bert.embeddings
        layers = iter(bert.encoder.layer)
        self.stages = nn.ModuleList(nn.ModuleList(next(layers) for _ in range(n)) for n in stage_layers)

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

    def embed(self, sentences: PackedSentences) -> Tensor:
        """Embed the tokens of packed sentences; returns 1 x T x D."""
        ids = sentences.token_ids[None]
        return self.embeddings(
            input_ids=ids, position_ids=sentences.positions[None], token_type_ids=torch.zeros_like(ids)
        )

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
        for layer in layers:
            arguments = (layer, hidden, sentences, cls_only and layer is layers[-1])
            hidden = run_again(_run_layer, *arguments, use_reentrant=False) if again else _run_layer(*arguments)
        return hidden


def _run_layer(layer: Any, hidden: Tensor, sentences: PackedSentences, cls_only: bool) -> Tensor:
    """A ``BertLayer`` on packed sentences (B x T x D), by the layer's own modules."""
    attention = layer.attention.self
    asking = hidden[:, : sentences.count] if cls_only else hidden
    query = attention.query(asking)
    query = rearrange(query, "b u c -> (b u) 1 c") if cls_only else sentences.unpack(query)
    query, key, value = (
        rearrange(x, "s l (h c) -> s h l c", h=attention.num_attention_heads)
        for x in (query, sentences.unpack(attention.key(hidden)), sentences.unpack(attention.value(hidden)))
    )
    mask = sentences.mask.repeat(hidden.shape[0], 1)[:, None, None, :]
    dropout = attention.dropout.p if layer.training else 0.0
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    attended = rearrange(attended, "s h l c -> s l (h c)")
    attended = rearrange(attended, "(b u) 1 c -> b u c", b=hidden.shape[0]) if cls_only else sentences.pack(attended)
    attended = layer.attention.output(attended, asking)
    return layer.output(layer.intermediate(attended), attended)


def _bert_config(checkpoint: str) -> BertConfig:
    try:
        config, _ = PreTrainedConfig.get_config_dict(checkpoint)
    except OSError as error:
        raise FileNotFoundError(
            f"The text encoder '{checkpoint}' is neither a folder with a Hugging Face model (config.json, "
            "weights, tokenizer) nor a model that could be downloaded. Check the path, or download the "
            f"model where there is a network and give its folder. ({first_lines(error)})"
        ) from error
    # BERT checkpoints older than the key do without it; the check of the weights still stands.
    kind = config.get("model_type", "bert")
    if kind != "bert":
        raise ValueError(
            f"The text encoder must be a BERT; '{checkpoint}' is of model type '{kind}'. Its weights would "
            "not fit: choose a BERT such as emilyalsentzer/Bio_ClinicalBERT."
        )
    bert_config = BertConfig.from_dict(config)
    bert_config._attn_implementation = "sdpa"
    return bert_config


def _load_bert(checkpoint: str, config: BertConfig) -> BertModel:
    if (
        Path(checkpoint).is_dir()
        and not any(Path(checkpoint).glob("*.safetensors"))
        and not any(Path(checkpoint).glob("*.bin"))
    ):
        raise ValueError(
            f"The folder '{checkpoint}' holds no weights (model.safetensors or pytorch_model.bin). Copy the "
            "whole model folder, or set `pretrained: false` to start from random weights."
        )
    loaded: Any = BertModel.from_pretrained(
        checkpoint,
        config=config,
        add_pooling_layer=False,
        dtype=torch.float32,
        attn_implementation="sdpa",
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    bert, report = loaded
    wrong: dict[str, list[str]] = {
        "missing": sorted(report["missing_keys"]),
        "of another shape": sorted(str(key) for key in report["mismatched_keys"]),
    }
    for what, keys in wrong.items():
        if keys:
            raise ValueError(
                f"The text encoder '{checkpoint}' is incomplete: {len(keys)} weights are {what}, "
                f"{', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}. They would start at random: use a "
                "complete BERT checkpoint that matches its config.json."
            )
    return bert
