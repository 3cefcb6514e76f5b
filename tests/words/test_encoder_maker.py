from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertModel, BertTokenizer

from scripts.words.encoder_maker import CONCEPTS_DIR, EncoderReport, make_text_encoder
from scripts.words.encoder_pretraining import (
    all_texts,
    make_tokenizer,
    masked_accuracy,
    most_frequent_accuracy,
    pretrain,
    reproducible,
    sentence_likeness,
    split_texts,
)
from scripts.words.table import ConceptTable

EMBEDDED = Path(__file__).resolve().parents[2] / "bipvl_bundle" / "models" / "text_encoder"
FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "SHA256SUMS"}
STRANGE = "Sphinx of quartz: judge my vow! zygomaticotemporal 42% {x} ~ jkl@q.w Éclair 10\u201320°"

TABLE = """
modality: CT
concepts: [title, shape, place]
classes:
  - {name: left ball, title: Left ball in a CT image., shape: Round and smooth., place: On the left side.}
  - {name: right ball, title: Right ball in a CT image., shape: Round and smooth., place: On the right side.}
  - {name: cube, title: Cube in a CT image., shape: Six flat faces., place: Between the two balls.}
"""
TINY = {"num_layers": 4, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "max_positions": 64}


@pytest.fixture(scope="module")
def concepts_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("concepts")
    (folder / "toys.yaml").write_text(TABLE, encoding="utf-8")
    return folder


def make(output: Path, concepts_dir: Path, **changes: object) -> EncoderReport:
    arguments = {
        "concepts_dir": concepts_dir,
        "vocab_size": 200,
        "steps": 5,
        "batch_size": 4,
        **TINY,
        **changes,
    }
    return make_text_encoder(output, **arguments)


def tiny_model(concepts_dir: Path) -> tuple[BertForMaskedLM, BertTokenizer, list[str]]:
    texts = all_texts([ConceptTable.load(concepts_dir / "toys.yaml")])
    tokenizer = make_tokenizer(texts, vocab_size=300, max_positions=64)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with reproducible(0):
        return BertForMaskedLM(config), tokenizer, texts


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def cls_states(folder: Path, sentences: list[str]) -> torch.Tensor:
    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        return torch.nn.functional.normalize(model(**tokens).last_hidden_state[:, 0], dim=-1)  # S x D


def test_the_same_seed_gives_the_same_files_and_another_seed_does_not(tmp_path: Path, concepts_dir: Path) -> None:
    state = torch.get_rng_state()
    first = make(tmp_path / "a", concepts_dir)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert make(tmp_path / "b", concepts_dir) == first
    make(tmp_path / "c", concepts_dir, seed=1)
    assert set(digests(tmp_path / "a")) == FILES
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a")["model.safetensors"] != digests(tmp_path / "c")["model.safetensors"]


def test_what_was_made_loads_in_full(tmp_path: Path, concepts_dir: Path) -> None:
    report = make(tmp_path, concepts_dir)
    model, info = BertModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert not any(info.values())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert report.vocabulary == len(tokenizer) == model.config.vocab_size <= 200
    assert report.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert tokenizer.model_max_length == 64
    pieces = (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert pieces == tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))


def test_the_report_is_printed(tmp_path: Path, concepts_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = make(tmp_path, concepts_dir)
    printed = capsys.readouterr().out
    assert f"{report.before:.1%} before training, {report.after:.1%} after it" in printed
    assert f"different sentences: {report.likeness:.3f}" in printed


def test_training_finds_masked_words_and_tells_sentences_apart(concepts_dir: Path) -> None:
    model, tokenizer, texts = tiny_model(concepts_dir)
    before = masked_accuracy(model, tokenizer, texts), sentence_likeness(model, tokenizer, texts)
    with reproducible(0):
        pretrain(model, tokenizer, texts, steps=100, batch_size=16, learning_rate=3e-3, seed=0)
    assert masked_accuracy(model, tokenizer, texts) > before[0] + 0.3
    assert sentence_likeness(model, tokenizer, texts) < before[1] - 0.5


def test_accuracies_of_a_model_that_always_answers_the_same(concepts_dir: Path) -> None:
    model, tokenizer, _ = tiny_model(concepts_dir)
    sentences = ["Round and round.", "A CT image."]  # 4 + 4 word pieces, two of them "round"
    with torch.no_grad():
        model.cls.predictions.bias[tokenizer.convert_tokens_to_ids("round")] = 1e4
    assert masked_accuracy(model, tokenizer, sentences) == 2 / 8
    assert most_frequent_accuracy(tokenizer, ["round round image"], sentences) == 2 / 8


def test_a_model_that_repeats_what_it_reads_finds_no_masked_word(concepts_dir: Path) -> None:
    class Parrot(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids, 300).float())

    _, tokenizer, texts = tiny_model(concepts_dir)
    assert masked_accuracy(Parrot(), tokenizer, texts) == 0


def test_a_folder_that_is_not_empty_is_kept_unless_told_otherwise(tmp_path: Path, concepts_dir: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is not an empty folder; choose another one or set overwrite"):
        make(tmp_path, concepts_dir)
    assert (tmp_path / "config.json").read_text() == "mine"
    make(tmp_path, concepts_dir, overwrite=True)
    assert BertModel.from_pretrained(tmp_path, add_pooling_layer=False).config.hidden_size == 16


def test_a_folder_without_tables_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No concept table \(\*\.yaml\) in '.*empty'"):
        make(tmp_path / "out", tmp_path / "empty")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 100}, r"vocab_size must be at least \d+, so many are characters; found 100"),
        ({"max_positions": 12}, r"max_positions is 12, but this text has \d+ word pieces: '.*: "),
    ],
)
def test_a_size_that_cannot_hold_the_texts_is_refused(
    tmp_path: Path, concepts_dir: Path, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, concepts_dir, **changes)


def test_no_word_is_unknown_even_to_the_smallest_vocabulary(concepts_dir: Path) -> None:
    texts = all_texts([ConceptTable.load(concepts_dir / "toys.yaml")])
    tokenizer = make_tokenizer(texts, vocab_size=166, max_positions=256)
    assert len(tokenizer) == 166
    assert tokenizer.unk_token not in tokenizer.tokenize(STRANGE)
    assert tokenizer.decode(tokenizer(STRANGE)["input_ids"], skip_special_tokens=True).startswith("sphinx of")


def test_nothing_held_out_is_trained_on() -> None:
    tables = [ConceptTable.load(path) for path in sorted(CONCEPTS_DIR.glob("*.yaml"))]
    train, held_out = split_texts(tables, seed=0)
    assert len(held_out) >= 10
    assert len(train) > 5 * len(held_out)
    body = "\n".join(train).casefold().replace("left", "right")
    for sentence in held_out:
        assert sentence.rstrip(".").casefold().replace("left", "right") not in body


def test_the_embedded_encoder_loads_in_full_and_is_small() -> None:
    assert {path.name for path in EMBEDDED.iterdir()} == FILES
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 6e6
    model, info = BertModel.from_pretrained(EMBEDDED, add_pooling_layer=False, output_loading_info=True)
    assert not any(info.values())
    assert model.dtype == torch.float32
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (4, 128)


def test_the_embedded_tokenizer_knows_every_word() -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    assert tokenizer.unk_token not in tokenizer.tokenize(STRANGE)
    assert tokenizer.tokenize("Left KIDNEY") == ["left", "kidney"]


def test_the_embedded_encoder_distinguishes_the_sentences_of_the_tables() -> None:
    for path in sorted(CONCEPTS_DIR.glob("*.yaml")):
        sentences = list(dict.fromkeys(ConceptTable.load(path).sentences_flat))
        states = cls_states(EMBEDDED, sentences)
        likeness = states @ states.T - torch.eye(len(states))
        assert likeness.max() < 0.95


def test_the_embedded_encoder_distinguishes_sentences_it_has_never_seen() -> None:
    one, two, again = cls_states(EMBEDDED, ["A dark tube in front.", "A white ball behind.", "A dark tube in front."])
    assert torch.allclose(one, again, atol=1e-5)
    assert one @ two < 0.95
