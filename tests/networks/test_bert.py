"""The adapter of Hugging Face's BERT against transformers' own forward, of whatever version is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertModel
from transformers.utils import logging as transformers_logging

from scripts.networks.bert import copy_bert, embed, layers_of, load_bert, read_config, run_layer
from scripts.networks.packing import PackedSentences
from scripts.networks.text_encoder import StagedTextEncoder

SENTENCES = ["the liver", "a bright tube in front of the spine", "left"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_layer_equals_that_of_the_bert_model(tiny_bert: Path, attention: str) -> None:
    tokens = AutoTokenizer.from_pretrained(tiny_bert)(SENTENCES, padding=True, return_tensors="pt")
    theirs = BertModel.from_pretrained(tiny_bert, add_pooling_layer=False, attn_implementation=attention).eval()
    expected = theirs(**tokens, output_hidden_states=True).hidden_states
    bert = load_bert(str(tiny_bert), read_config(str(tiny_bert))).eval()
    packed = PackedSentences(tokens["input_ids"], tokens["attention_mask"])
    hidden = embed(bert.embeddings, packed)
    for number, layer in enumerate([None, *layers_of(bert)]):
        hidden = hidden if layer is None else run_layer(layer, hidden, packed, False)
        found, known = packed.unpack(hidden)[packed.mask], expected[number][packed.mask]
        torch.testing.assert_close(found, known, atol=1e-5, rtol=1e-4)
    assert len(layers_of(bert)) + 1 == len(expected)


@pytest.mark.parametrize("cls_only", [False, True])
def test_stage_of_two_images_equals_the_layers_of_hugging_face(tiny_bert: Path, cls_only: bool) -> None:
    """In training too, without dropout: states and the gradients of weights and input."""
    encoder = StagedTextEncoder(str(tiny_bert), stage_layers=(1, 1, 1, 1), dropout=0.0).double().train()
    token_ids, mask = encoder.tokenize(SENTENCES)
    packed, layer = PackedSentences(token_ids, mask), encoder.stages[1][0]
    row = torch.randn(2, int(mask.sum()), 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for ours in (True, False):
        row = row.detach().requires_grad_()
        encoder.zero_grad()
        if ours:
            states = encoder.run_stage(2, row, packed, cls_only=cls_only)
            states = states if cls_only else packed.unpack(states)[packed.mask.repeat(2, 1)]
        else:
            padded = layer(packed.unpack(row), attention_mask=mask.repeat(2, 1)[:, None, None, :])
            states = padded[:, 0].unflatten(0, (2, 3)) if cls_only else padded[mask.repeat(2, 1)]
        states.sin().sum().backward()
        results.append((states.detach(), row.grad, [p.grad for p in layer.parameters()]))
    torch.testing.assert_close(results[0], results[1])


def test_copy_is_the_encoder_and_its_tokenizer(tiny_bert: Path, tmp_path: Path) -> None:
    copy_bert(str(tiny_bert), tmp_path / "copy")
    old, new = (load_bert(str(path), read_config(str(path))).state_dict() for path in (tiny_bert, tmp_path / "copy"))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    ids = [AutoTokenizer.from_pretrained(path)(SENTENCES)["input_ids"] for path in (tiny_bert, tmp_path / "copy")]
    assert ids[0] == ids[1]


def test_a_local_folder_is_loaded_without_a_progress_bar(tiny_bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = read_config(str(tiny_bert))
    capfd.readouterr()
    load_bert(str(tiny_bert), config)
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.is_progress_bar_enabled()
