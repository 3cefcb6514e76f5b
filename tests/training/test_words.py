from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from scripts.training.words import check_training_words
from scripts.words.table import ConceptTable


class Reader(torch.nn.Module):
    def __init__(self, concepts: ConceptTable) -> None:
        super().__init__()
        self.concepts = concepts


@pytest.fixture
def unreviewed(table: ConceptTable) -> ConceptTable:
    return replace(table, reviewed=False, source="organs.yaml")


def test_unreviewed_words_are_told_once_with_the_table_and_what_to_do(
    unreviewed: ConceptTable, caplog: pytest.LogCaptureFixture
) -> None:
    check_training_words(torch.nn.DataParallel(Reader(unreviewed)))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert message.startswith("UNREVIEWED WORDS: this training learns from organs.yaml")
    assert "`reviewed: true`" in message


def test_reviewed_words_pass_in_silence(table: ConceptTable, caplog: pytest.LogCaptureFixture) -> None:
    check_training_words(Reader(table))
    assert not caplog.records


def test_a_network_without_words_passes_whatever_the_options(caplog: pytest.LogCaptureFixture) -> None:
    check_training_words(torch.nn.Linear(1, 1), swap=["a", "b"])
    assert not caplog.records


def test_only_the_first_of_several_processes_speaks(
    unreviewed: ConceptTable, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    check_training_words(Reader(unreviewed))
    assert not caplog.records


def test_swapped_words_are_not_trained_on(table: ConceptTable) -> None:
    with pytest.raises(ValueError, match=r"`swap` \['liver', 'spleen'\] .* set it in evaluation or inference"):
        check_training_words(Reader(table), swap=("liver", "spleen"))
