"""What training steps ask for."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from scripts.words.questions import Question, QuestionSampler

DRAWS = 200


@pytest.fixture
def table(table):
    others = ((("Bean.", "Like a bean."), ("Right.",)), ((), ()), ((), ("At the top right.",)))
    return replace(table, alternatives=others)


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)


def draws(table, **probabilities):
    sampler = QuestionSampler(**probabilities)
    return [sampler.draw(table) for _ in range(DRAWS)]


def test_without_variations_asks_for_the_whole_table(table):
    assert set(draws(table)) == {Question.whole(table)}


def test_subsets_come_in_every_size_and_order(table):
    asked = {question.classes for question in draws(table, subset=1.0)}
    assert {len(classes) for classes in asked} == {1, 2, 3}
    assert {classes for classes in asked if len(classes) == 3} >= {(0, 1, 2), (2, 1, 0), (1, 0, 2)}


def test_sentences_follow_their_classes(table):
    for question in draws(table, subset=1.0):
        assert question.sentences == tuple(table.sentences[label] for label in question.classes)


def test_left_out_concepts_leave_at_least_one_and_agree_in_half_of_the_draws(table):
    questions = draws(table, leave_out=1.0)
    assert all(any(row) for question in questions for row in question.kept)
    assert not all(all(row) for question in questions for row in question.kept)
    agreeing = sum(len(set(question.kept)) == 1 for question in questions) / DRAWS
    assert 0.5 < agreeing < 0.8  # two concepts also agree by chance


def test_alternatives_take_the_place_of_their_sentence(table):
    seen = {question.sentences for question in draws(table, alternatives=0.5)}
    assert {rows[0][0] for rows in seen} == {"A bean.", "Bean.", "Like a bean."}
    assert {rows[1] for rows in seen} == {table.sentences[1]}


def test_mirrored_questions_exchange_the_sides_in_all_words(table):
    mirrored = [question for question in draws(table, mirror=0.5, alternatives=0.5) if question.mirrored]
    assert 0.3 < len(mirrored) / DRAWS < 0.7
    assert {question.sentences[0][1] for question in mirrored} == {"On the left.", "Left."}
    assert {question.sentences[1][1] for question in mirrored} == {"On the right."}


def test_strength_scales_every_probability(table):
    sampler = QuestionSampler(subset=1.0, leave_out=1.0, alternatives=1.0, mirror=1.0)
    sampler.strength = 0.0
    assert {sampler.draw(table) for _ in range(DRAWS)} == {Question.whole(table)}


def test_draws_are_those_of_the_seed(table):
    sampler = QuestionSampler(subset=0.5, leave_out=0.5, alternatives=0.5, mirror=0.5)
    drawn = []
    for _ in range(2):
        random.seed(7)
        drawn.append([sampler.draw(table) for _ in range(20)])
    assert drawn[0] == drawn[1]


def test_table_without_alternatives_keeps_its_sentences(table):
    bare = replace(table, alternatives=())
    assert set(draws(bare, alternatives=1.0)) == {Question.whole(bare)}


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_impossible_probability_raises(value):
    with pytest.raises(ValueError, match=f"`leave_out` of a question must be from 0 to 1, found {value}"):
        QuestionSampler(leave_out=value)


def test_every_case_is_asked_for_something_that_is_labelled_in_it(table):
    sampler = QuestionSampler(subset=1.0)
    labelled = [(True, False, False), (False, False, True)]
    asked = [sampler.draw(table, labelled).classes for _ in range(DRAWS)]
    assert all({0, 2} <= set(classes) for classes in asked)
    assert {len(classes) for classes in asked} == {2, 3}
    assert all(len(set(classes)) == len(classes) for classes in asked)
