from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertModel, DistilBertConfig, DistilBertModel

from scripts.networks.packing import PackedSentences
from scripts.networks.text_encoder import StagedTextEncoder

SENTENCES = ["the liver", "a bright tube in front of the spine", "left"]
SPLIT = (1, 1, 1, 1)


@pytest.fixture
def broken(tiny_bert, tmp_path):
    """A copy of the tiny BERT whose weights and configuration a test may spoil."""
    folder = tmp_path / "bert"
    shutil.copytree(tiny_bert, folder)

    def spoil(change_weights=None, **config):
        if change_weights:
            weights = load_file(folder / "model.safetensors")
            change_weights(weights)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, **config}))
        return str(folder)

    return spoil


def read(encoder, sentences):
    packed = PackedSentences(*encoder.tokenize(sentences))
    hidden = encoder.embed(packed)
    for stage in (1, 2, 3, 4):
        hidden = encoder.run_stage(stage, hidden, packed)
    return packed.unpack(hidden), packed.mask


def test_four_stages_equal_the_whole_bert(tiny_bert):
    encoder = StagedTextEncoder(str(tiny_bert), stage_layers=SPLIT).eval()
    bert = BertModel.from_pretrained(tiny_bert, add_pooling_layer=False, attn_implementation="eager").eval()
    tokens = AutoTokenizer.from_pretrained(tiny_bert)(SENTENCES, padding=True, return_tensors="pt")
    hidden, mask = read(encoder, SENTENCES)
    torch.testing.assert_close(hidden[mask], bert(**tokens).last_hidden_state[mask], atol=1e-5, rtol=1e-4)


def pass_and_keep(encoder):
    """States and gradients of a training pass, and how many numbers it kept for its backward pass."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        torch.manual_seed(0)
        packed = PackedSentences(*encoder.tokenize(SENTENCES))
        hidden = encoder.embed(packed)
        for stage in (1, 2, 3, 4):
            hidden = encoder.run_stage(stage, hidden, packed, cls_only=stage == 4)
    hidden.sin().sum().backward()
    return (hidden.detach(), {name: p.grad for name, p in encoder.named_parameters()}), sum(sizes)


def test_recomputing_keeps_less_and_changes_neither_states_nor_gradients(tiny_bert):
    """With dropout, whose draws have to be the same again."""
    plain, again = (
        pass_and_keep(StagedTextEncoder(str(tiny_bert), stage_layers=SPLIT, dropout=0.5, recompute=recompute).train())
        for recompute in (False, True)
    )
    torch.testing.assert_close(again[0], plain[0])
    assert again[1] < plain[1] / 2


def test_dropout_is_the_checkpoints_in_training_only(tiny_bert):
    encoder = StagedTextEncoder(str(tiny_bert), stage_layers=SPLIT, dropout=0.5)
    packed = PackedSentences(*encoder.tokenize(SENTENCES))
    hidden = encoder.embed(packed).detach()
    encoder.stages[0].train()
    assert not torch.equal(encoder.run_stage(1, hidden, packed), encoder.run_stage(1, hidden, packed))
    encoder.stages[0].eval()
    assert torch.equal(encoder.run_stage(1, hidden, packed), encoder.run_stage(1, hidden, packed))


def test_padding_changes_no_result(tiny_bert):
    encoder = StagedTextEncoder(str(tiny_bert), stage_layers=SPLIT).eval()
    together, _ = read(encoder, SENTENCES)
    for i, sentence in enumerate(SENTENCES):
        torch.testing.assert_close(read(encoder, [sentence])[0][0, 0], together[i, 0], atol=1e-5, rtol=1e-4)


def test_without_pretraining_only_the_architecture_is_taken(tiny_bert):
    encoder = StagedTextEncoder(str(tiny_bert), stage_layers=SPLIT, pretrained=False)
    known = StagedTextEncoder(str(tiny_bert), stage_layers=SPLIT)
    assert not torch.equal(encoder.embeddings.word_embeddings.weight, known.embeddings.word_embeddings.weight)
    encoder.load_state_dict(known.state_dict())


def test_half_precision_checkpoints_are_loaded_in_single_precision(broken):
    def halve(weights):
        weights.update({name: value.half() for name, value in weights.items()})

    encoder = StagedTextEncoder(broken(halve, dtype="float16"), stage_layers=SPLIT)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_bert_older_than_the_model_type_key_loads(broken):
    folder = Path(broken())
    settings = json.loads((folder / "config.json").read_text())
    del settings["model_type"]
    (folder / "config.json").write_text(json.dumps(settings))
    assert StagedTextEncoder(str(folder), stage_layers=SPLIT).channels == 16


def test_missing_weight_raises(broken):
    folder = broken(lambda weights: weights.pop("encoder.layer.2.output.dense.weight"))
    with pytest.raises(ValueError, match=r"1 weights are missing, encoder\.layer\.2\.output\.dense\.weight"):
        StagedTextEncoder(folder, stage_layers=SPLIT)


def test_weight_of_another_shape_raises(broken):
    folder = broken(intermediate_size=48)
    with pytest.raises(ValueError, match="weights are of another shape"):
        StagedTextEncoder(folder, stage_layers=SPLIT)


def test_another_architecture_raises(tmp_path):
    config = DistilBertConfig(vocab_size=32, dim=16, n_layers=4, n_heads=2, hidden_dim=32)
    DistilBertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must be a BERT; .* is of model type 'distilbert'"):
        StagedTextEncoder(str(tmp_path), stage_layers=SPLIT)


def test_folder_without_weights_raises(broken):
    folder = broken()
    Path(folder, "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        StagedTextEncoder(folder, stage_layers=SPLIT)


def test_absent_checkpoint_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither a folder .* nor a model that could be downloaded"):
        StagedTextEncoder(str(tmp_path / "nothing"))


def test_split_that_does_not_fit_the_depth_raises(tiny_bert):
    with pytest.raises(ValueError, match=r"\[6, 2, 2, 2\] adds up to 12 layers, but .* has 4"):
        StagedTextEncoder(str(tiny_bert))


def test_split_into_other_than_four_stages_raises(tiny_bert):
    with pytest.raises(ValueError, match="needs 4 positive numbers"):
        StagedTextEncoder(str(tiny_bert), stage_layers=(2, 2))


def test_sentence_beyond_the_encoder_raises_and_is_quoted(tiny_bert):
    encoder = StagedTextEncoder(str(tiny_bert), stage_layers=SPLIT)
    with pytest.raises(ValueError, match="at most 64 tokens a sentence; this one has 102: 'xxxx"):
        encoder.tokenize(["short", "x" * 100])
