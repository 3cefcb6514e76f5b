"""A BERT cut into four stages, so that text and image can meet after each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedConfig

_STAGES = 4


class StagedTextEncoder(nn.Module):
    """Embeddings and layers of a Hugging Face BERT, run one stage at a time.

    The attention mask holds in every layer, so that padding changes no result.

    Args:
        checkpoint: a Hugging Face model name or a local folder in that format, weights and tokenizer.
        stage_layers: how many layers each of the four stages has; the paper cuts BERT-base into
            layers 1-6, 7-8, 9-10 and 11-12.
        pretrained: False takes only configuration and tokenizer from ``checkpoint``; for networks whose
            weights come from a checkpoint of their own.
        dropout: overrides the checkpoint's dropout rates; None keeps them.

    Raises:
        FileNotFoundError: ``checkpoint`` is neither a folder nor a model that can be downloaded.
        ValueError: it is not a BERT, lacks weights of the encoder, has weights of another shape, or has
            another depth than ``stage_layers`` adds up to.

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
    ) -> None:
        super().__init__()
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

    def embed(self, token_ids: Tensor) -> Tensor:
        """Embed token ids (S x L); returns S x L x D."""
        return self.embeddings(input_ids=token_ids)

    def run_stage(self, stage: int, hidden: Tensor, mask: Tensor) -> Tensor:
        """Run the layers of one stage.

        Args:
            stage: 1 to 4
            hidden: S x L x D
            mask: True on tokens, S x L

        Returns:
            S x L x D
        """
        for layer in cast(nn.ModuleList, self.stages[stage - 1]):
            hidden = layer(hidden, attention_mask=mask[:, None, None, :])
        return hidden


def _bert_config(checkpoint: str) -> BertConfig:
    try:
        config, _ = PreTrainedConfig.get_config_dict(checkpoint)
    except OSError as error:
        raise FileNotFoundError(
            f"The text encoder '{checkpoint}' is neither a folder with a Hugging Face model (config.json, "
            "weights, tokenizer) nor a model that could be downloaded. Check the path, or download the "
            f"model where there is a network and give its folder. ({str(error).splitlines()[0]})"
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
