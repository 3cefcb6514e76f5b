"""Adapter of Hugging Face's BERT: the one file that uses its parts, for transformers 5.17 to 5.23.

Everything else sees a configuration, embeddings and a list of layers. `tests/networks/test_bert.py` holds each layer
and the whole against `BertModel`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedConfig
from transformers.utils import CONFIG_NAME
from transformers.utils import logging as transformers_logging

from scripts.messages.phrases import first_lines
from scripts.networks.joint_linear import JointLinear
from scripts.networks.packing import PackedSentences


def layers_of(bert: BertModel) -> list[nn.Module]:
    """Return the transformer layers of a BERT in order."""
    return list(bert.encoder.layer)


def embed(embeddings: Any, sentences: PackedSentences) -> Tensor:
    """Return the embeddings of packed sentences by ``BertModel.embeddings``, all of token type 0: 1 x T x D."""
    ids = sentences.token_ids[None]
    return embeddings(input_ids=ids, position_ids=sentences.positions[None], token_type_ids=torch.zeros_like(ids))


def run_layer(
    layer: Any, hidden: Tensor, sentences: PackedSentences, cls_only: bool, joint: JointLinear | None = None
) -> Tensor:
    """Run a ``BertLayer`` on packed sentences (B x T x D) by its own modules.

    With ``cls_only`` it computes nothing but the [CLS] states (B x U x D). ``joint`` keeps the layer's stacked weights.
    """
    attention, joint = layer.attention.self, joint or JointLinear()
    asking = hidden[:, : sentences.count] if cls_only else hidden
    asked = (attention.key, attention.value) if cls_only else (attention.query, attention.key, attention.value)
    projected = sentences.unpack(joint(hidden, *asked)).chunk(len(asked), dim=-1)
    if cls_only:
        projected = (rearrange(attention.query(asking), "b u c -> (b u) 1 c"), *projected)
    query, key, value = (rearrange(x, "s l (h c) -> s h l c", h=attention.num_attention_heads) for x in projected)
    bias = sentences.attention_bias(hidden.shape[0], query.dtype)
    dropout = attention.dropout.p if layer.training else 0.0
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    attended = rearrange(attended, "s h l c -> s l (h c)")
    attended = rearrange(attended, "(b u) 1 c -> b u c", b=hidden.shape[0]) if cls_only else sentences.pack(attended)
    attended = layer.attention.output(attended, asking)
    return layer.output(layer.intermediate(attended), attended)


def place_of(checkpoint: str | Path) -> dict[str, Any]:
    """Return where transformers finds a checkpoint: the arguments of ``from_pretrained`` that say so.

    Args:
        checkpoint: a folder, or a name on the hub, with "@" and a commit, tag or branch after it to pin one.
    """
    name, _, revision = str(checkpoint).partition("@")
    if not revision or Path(checkpoint).is_dir():
        return {"pretrained_model_name_or_path": str(checkpoint)}
    return {"pretrained_model_name_or_path": name, "revision": revision}


def pinned(checkpoint: str) -> str:
    """Return a name on the hub with the commit that it leads to at present; a folder as it is.

    Raises:
        FileNotFoundError: there is neither.
    """
    if Path(checkpoint).is_dir():
        return checkpoint
    read_settings(checkpoint)  # downloads it where it is not there yet
    place = place_of(checkpoint)
    name = place["pretrained_model_name_or_path"]
    file = try_to_load_from_cache(name, CONFIG_NAME, revision=place.get("revision"))
    return f"{name}@{Path(file).parent.name}" if isinstance(file, str) else checkpoint  # folders are named by commits


def read_settings(checkpoint: str) -> dict[str, Any]:
    """Read what stands in the configuration of a text encoder in a folder or on the hub.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        config, _ = PreTrainedConfig.get_config_dict(**place_of(checkpoint))
    except OSError as error:
        raise FileNotFoundError(
            f"The text encoder '{checkpoint}' is neither a folder with a Hugging Face model (config.json, "
            "weights, tokenizer) nor a model that could be downloaded. Check the path, or download the "
            f"model where there is a network and give its folder. ({first_lines(error)})"
        ) from error
    return config


def read_config(checkpoint: str) -> BertConfig:
    """Read the configuration of a BERT from a folder or the hub.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another architecture.
    """
    config = read_settings(checkpoint)
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


def load_bert(checkpoint: str, config: BertConfig) -> BertModel:
    """Load the BERT of a checkpoint without its pooler, in single precision.

    Raises:
        ValueError: a weight is missing or of another shape; transformers alone would leave it at random.
    """
    if (
        Path(checkpoint).is_dir()
        and not any(Path(checkpoint).glob("*.safetensors"))
        and not any(Path(checkpoint).glob("*.bin"))
    ):
        raise ValueError(
            f"The folder '{checkpoint}' holds no weights (model.safetensors or pytorch_model.bin). Copy the "
            "whole model folder, or set `pretrained: false` to start from random weights."
        )
    with _progress_of_downloads_alone(checkpoint):
        loaded: Any = BertModel.from_pretrained(
            **place_of(checkpoint),
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


@contextmanager
def _progress_of_downloads_alone(checkpoint: str) -> Iterator[None]:
    """Hide transformers' bar over the weights of a local folder, which are read in a moment."""
    shown = transformers_logging.is_progress_bar_enabled() and Path(checkpoint).is_dir()
    if shown:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def new_bert(config: BertConfig) -> BertModel:
    """Create a BERT without its pooler, with random weights."""
    return BertModel(config, add_pooling_layer=False)


def copy_bert(checkpoint: str, folder: Path) -> None:
    """Write encoder and tokenizer of a checkpoint to a folder in Hugging Face's format."""
    AutoTokenizer.from_pretrained(**place_of(checkpoint)).save_pretrained(folder)
    load_bert(checkpoint, read_config(checkpoint)).save_pretrained(folder)
