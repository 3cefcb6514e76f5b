from __future__ import annotations

import numpy as np
import pytest

from scripts.benchmark.inputs import concepts_for, draw_balls
from scripts.networks.packing import PackedSentences
from scripts.networks.text_encoder import StagedTextEncoder


@pytest.mark.parametrize("classes", [2, 15, 60, 117])
def test_words_for_any_number_of_classes(classes):
    table = concepts_for(classes)
    assert len(set(table.classes)) == classes
    assert {len(row) for row in table.sentences} == {6}
    assert table.sentences[:2] == concepts_for(15).sentences[:2]


def test_further_classes_have_new_sentences_of_the_same_length():
    table = concepts_for(30)
    first, second = table.sentences[:15], table.sentences[15:]
    assert not set(sum(first, ())) & set(sum(second, ()))
    assert [len(s.split()) for s in sum(first, ())] == [len(s.split()) for s in sum(second, ())]
    assert len(set(sum(first, ()))) == len(set(sum(second, ())))


def test_tokens_are_as_many_as_those_of_the_table(small_bert):
    encoder = StagedTextEncoder(str(small_bert), stage_layers=(1, 1, 1, 1), pretrained=False)
    packed = PackedSentences(*encoder.tokenize(concepts_for(15).sentences_flat))
    assert packed.count == 82
    assert len(packed.token_ids) == 1546


def test_every_class_is_a_ball_within_the_volume():
    label = draw_balls((40, 30, 20), 3)
    assert np.unique(label).tolist() == [0, 1, 2, 3]
    assert label.shape == (40, 30, 20)
    assert label.dtype == np.uint8
