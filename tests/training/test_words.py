from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from ignite.engine import Engine, Events

from scripts.training.words import QuestionRamp, prepare_words
from scripts.words.questions import QuestionSampler
from scripts.words.table import ConceptTable


class Reader(torch.nn.Module):
    def __init__(self, concepts: ConceptTable) -> None:
        super().__init__()
        self.concepts = concepts
        self.learnt: list[ConceptTable] = []

    def learn(self, concepts: ConceptTable) -> None:
        self.learnt.append(concepts)


@pytest.fixture
def unreviewed(table: ConceptTable) -> ConceptTable:
    return replace(table, reviewed=False, source="organs.yaml")


def test_unreviewed_words_are_told_once_with_the_table_and_what_to_do(
    unreviewed: ConceptTable, caplog: pytest.LogCaptureFixture
) -> None:
    prepare_words(torch.nn.DataParallel(Reader(unreviewed)))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert message.startswith("UNREVIEWED WORDS: this training learns from organs.yaml")
    assert "`reviewed: true`" in message


def test_reviewed_words_pass_in_silence(table: ConceptTable, caplog: pytest.LogCaptureFixture) -> None:
    prepare_words(Reader(table))
    assert not caplog.records


def test_a_network_without_words_passes_whatever_the_options(caplog: pytest.LogCaptureFixture) -> None:
    prepare_words(torch.nn.Linear(1, 1), swap=["a", "b"])
    assert not caplog.records


def test_only_the_first_of_several_processes_speaks(
    unreviewed: ConceptTable, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    prepare_words(Reader(unreviewed))
    assert not caplog.records


def test_swapped_words_are_not_trained_on(table: ConceptTable) -> None:
    with pytest.raises(ValueError, match=r"`swap` \['liver', 'spleen'\] .* set it in evaluation or inference"):
        prepare_words(Reader(table), swap=("liver", "spleen"))


def test_network_learns_the_table_that_it_reads(table: ConceptTable) -> None:
    reader = Reader(replace(table, reviewed=True))
    prepare_words(torch.nn.DataParallel(reader))
    assert reader.learnt == [reader.concepts]


class TestQuestionRamp:
    @pytest.mark.parametrize(
        ("share", "expected"),
        [(0.5, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]), (0.0, [1] * 8), (1.0, [n / 8 for n in range(1, 9)])],
    )
    def test_strength_rises_over_a_share_of_the_epochs(self, share: float, expected: list[float]) -> None:
        questions = QuestionSampler(subset=0.5)
        engine = Engine(lambda *_: None)
        QuestionRamp(questions, share).attach(engine)
        seen: list[float] = []
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append(questions.strength))
        engine.run([0], max_epochs=8)
        assert seen == pytest.approx(expected)

    def test_impossible_share_raises(self) -> None:
        with pytest.raises(ValueError, match="`share` is a part of the epochs, from 0 to 1; found 33"):
            QuestionRamp(QuestionSampler(), 33)
