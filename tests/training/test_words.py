from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from ignite.engine import Engine, Events

from scripts.training.words import QuestionRamp, WarnOfCollapse, prepare_words
from scripts.words.questions import QuestionSampler
from scripts.words.table import ConceptTable


class Reader(torch.nn.Module):
    def __init__(self, concepts: ConceptTable) -> None:
        super().__init__()
        self.concepts = concepts
        self.learnt: list[tuple[ConceptTable, QuestionSampler | None]] = []

    def learn(self, concepts: ConceptTable, questions: QuestionSampler | None) -> None:
        self.learnt.append((concepts, questions))


@pytest.fixture
def unreviewed(table: ConceptTable) -> ConceptTable:
    return replace(table, reviewed=False, source="organs.yaml")


def test_unreviewed_words_are_reported_once_with_the_table_and_what_to_do(
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
    questions = QuestionSampler()
    prepare_words(torch.nn.DataParallel(reader), questions=questions)
    assert reader.learnt == [(reader.concepts, questions)]


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


def messages(epochs: Sequence[dict[str, float]], caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What is logged over epochs with these metrics."""
    engine = Engine(lambda engine, batch: None)

    @engine.on(Events.EPOCH_COMPLETED)
    def measure() -> None:
        engine.state.metrics = dict(epochs[engine.state.epoch - 1])

    WarnOfCollapse().attach(engine)
    caplog.clear()
    with caplog.at_level("INFO", logger="scripts.training.words"):
        engine.run([0], max_epochs=len(epochs))
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def aligned(text: float, vision: float) -> dict[str, float]:
    return {"train_cosine_text": text, "train_cosine_vision": vision}


def test_warns_once_a_collapse_and_tells_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    epochs = [aligned(0.9, 0.4), aligned(0.999, 0.4), aligned(0.999, 1.0), aligned(0.5, 0.4), aligned(0.2, 0.99)]
    (first, collapse), (second, back), (third, again) = messages(epochs, caplog)
    assert (first, second, third) == ("WARNING", "INFO", "WARNING")
    assert "Epoch 2: the alignment has collapsed. Different classes have the same texts (0.999)" in collapse
    assert "text_learning_rate" in collapse
    assert back.startswith("Epoch 4: the alignment is back")
    assert "Epoch 5" in again
    assert "image features (0.990)" in again


def test_embeddings_that_are_both_one_are_both_named(caplog: pytest.LogCaptureFixture) -> None:
    ((_, message),) = messages([aligned(1.0, 0.99)], caplog)
    assert "texts (1.000) and image features (0.990)" in message


def test_an_alignment_that_is_still_forming_is_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    one = aligned(1.0, 1.0)
    assert messages([one, *[aligned(0.5, 0.5)] * 9], caplog) == []
    ((_, message),) = messages([one] * 10, caplog)
    assert "Epoch 3: the alignment has collapsed" in message
    (_, message), _ = messages([aligned(0.5, 0.5), one, *[aligned(0.5, 0.5)] * 8], caplog)
    assert "Epoch 2" in message


@pytest.mark.parametrize("metrics", [{}, {"train_loss": 1.0}, aligned(-0.9, 0.97)])
def test_says_nothing_without_an_alignment_or_of_a_sound_one(
    metrics: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    assert messages([metrics], caplog) == []
