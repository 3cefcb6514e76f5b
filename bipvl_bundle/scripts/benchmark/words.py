"""Concept tables for any number of classes, and a text encoder without weights; a benchmark downloads nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from transformers import AutoTokenizer, BertConfig

from scripts.words.sentences import deal_words
from scripts.words.table import ConceptTable

BUNDLE = Path(__file__).resolve().parents[2]


def concepts_for(classes: int) -> ConceptTable:
    """Make a concept table: AMOS22's fifteen organs, and further classes with the same words shuffled.

    Every further fifteen classes have sentences of the same numbers of words, and as many that are equal.
    """
    table = ConceptTable.load(BUNDLE / "configs" / "concepts" / "amos22.yaml")
    rounds = math.ceil(classes / len(table.classes))
    names = [name if turn == 0 else f"{name} {turn + 1}" for turn in range(rounds) for name in table.classes]
    rows = list(table.sentences)
    for turn in range(1, rounds):
        rows += deal_words(table.sentences, turn)
    return replace(
        table,
        classes=tuple(names[:classes]),
        sentences=tuple(rows[:classes]),
        codes=(),
        source=f"words for {classes} classes",
    )


def write_text_encoder(folder: Path, **sizes: int) -> Path:
    """Write the configuration of a BERT (BERT-base by default) and the bundle's tokenizer; no weights."""
    AutoTokenizer.from_pretrained(BUNDLE / "models" / "text_encoder").save_pretrained(folder)
    BertConfig.from_dict({"vocab_size": 28996, **sizes}).save_pretrained(folder)
    return folder
