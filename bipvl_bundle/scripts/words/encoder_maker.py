"""The command `make_text_encoder`: trains the bundle's small text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from scripts.trust.digests import write_sums
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

CONCEPTS_DIR = Path(__file__).resolve().parents[2] / "configs" / "concepts"


@dataclass(frozen=True)
class EncoderReport:
    """Results of `make_text_encoder`; an accuracy is a fraction of the held-out word pieces.

    Attributes:
        vocabulary: number of word pieces.
        parameters: of the encoder that was saved.
        trained_on: number of texts that were trained on.
        held_out: number of sentences that were not.
        most_frequent: accuracy of always answering the most frequent word piece.
        before: accuracy of the untrained model.
        after: accuracy of the trained model.
        likeness: mean cosine between the [CLS] states of different sentences after training.
    """

    vocabulary: int
    parameters: int
    trained_on: int
    held_out: int
    most_frequent: float
    before: float
    after: float
    likeness: float

    def __str__(self) -> str:
        return (
            f"{self.vocabulary} word pieces, {self.parameters} parameters, {self.trained_on} texts.\n"
            f"Masked word pieces found again in {self.held_out} held-out sentences: {self.before:.1%} before "
            f"training, {self.after:.1%} after it, {self.most_frequent:.1%} by always answering "
            f"the most frequent piece.\n"
            f"Mean cosine between the [CLS] states of different sentences: {self.likeness:.3f}."
        )


def make_text_encoder(
    output_dir: str | Path,
    *,
    concepts_dir: str | Path = CONCEPTS_DIR,
    vocab_size: int = 2000,
    num_layers: int = 4,
    hidden_size: int = 128,
    num_heads: int = 4,
    intermediate_size: int = 512,
    max_positions: int = 256,
    steps: int = 1500,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    seed: int = 0,
    overwrite: bool = False,
) -> EncoderReport:
    """Train a WordPiece tokenizer and a small BERT on the project's concept tables, and save both.

    The texts are all tables in `concepts_dir` in all formats. The encoder learns to predict masked word pieces. Since
    fusion and alignment read a sentence's [CLS] state, it also learns to give each sentence a [CLS] state of its own,
    close to that of the same sentence masked: masked language modelling alone leaves "left kidney" and "right kidney"
    at a cosine of 0.9998.

    A tenth of the concept sentences is held out with all that repeats them. The vocabulary has seen them and they
    resemble the others, so their accuracy shows only that training worked. The report is printed. The result is the
    same for the same seed, texts and library versions, on one CPU thread.

    Args:
        output_dir: receives config.json, model.safetensors, tokenizer.json, tokenizer_config.json, vocab.txt and
            SHA256SUMS.
        vocab_size: largest number of word pieces; a small corpus has fewer. Single characters are always included,
            so no English word is unknown.
        max_positions: longest text in word pieces. One aggregated sentence takes up to about 135.
        steps: optimiser steps; 1500 take two to three minutes.
        overwrite: replace the files in a folder that is not empty.

    Raises:
        FileExistsError: `output_dir` is a file, or is not empty and `overwrite` is not set.
        FileNotFoundError: `concepts_dir` holds no table.
        ValueError: a text is longer than `max_positions`, or `vocab_size` leaves no room for the characters.
    """
    output = _claim(Path(output_dir), overwrite)
    tables = _load_tables(Path(concepts_dir))
    train, held_out = split_texts(tables, seed)
    tokenizer = make_tokenizer(all_texts(tables), vocab_size=vocab_size, max_positions=max_positions)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max_positions,
        pad_token_id=tokenizer.pad_token_id,
    )
    with reproducible(seed):
        model = BertForMaskedLM(config)
        before = masked_accuracy(model, tokenizer, held_out)
        pretrain(
            model,
            tokenizer,
            train,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
        )
        after = masked_accuracy(model, tokenizer, held_out)
        likeness = sentence_likeness(model, tokenizer, all_texts(tables))
    _save(model, tokenizer, output)
    report = EncoderReport(
        vocabulary=len(tokenizer),
        parameters=model.bert.num_parameters(),
        trained_on=len(train),
        held_out=len(held_out),
        most_frequent=most_frequent_accuracy(tokenizer, train, held_out),
        before=before,
        after=after,
        likeness=likeness,
    )
    print(report)
    return report


def _claim(output: Path, overwrite: bool) -> Path:
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not overwrite):
        raise FileExistsError(f"'{output}' is not an empty folder; choose another one or set overwrite.")
    output.mkdir(parents=True, exist_ok=True)
    return output


def _load_tables(folder: Path) -> list[ConceptTable]:
    tables = [ConceptTable.load(path) for path in sorted(folder.glob("*.yaml"))]
    if not tables:
        raise FileNotFoundError(f"No concept table (*.yaml) in '{folder}'.")
    return tables


def _save(model: BertForMaskedLM, tokenizer: BertTokenizer, output: Path) -> None:
    model.bert.save_pretrained(output)
    tokenizer.save_pretrained(output)
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (output / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in pieces), encoding="utf-8")
    write_sums(output)
