from __future__ import annotations

import pytest
import torch

from scripts.networks.packing import PackedSentences

# Four sentences of 3, 2, 2 and 1 tokens; the third is the second again.
TOKEN_IDS = torch.tensor([[1, 5, 6], [1, 7, 0], [1, 7, 0], [1, 0, 0]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]], dtype=torch.bool)
DIFFERENT = [0, 1, 3]


@pytest.fixture
def packed() -> PackedSentences:
    return PackedSentences(TOKEN_IDS, MASK)


def test_row_holds_first_tokens_then_the_others_each_sentence_once(packed):
    assert packed.count == 3
    assert packed.token_ids.tolist() == [1, 1, 1, 5, 6, 7]
    assert packed.positions.tolist() == [0, 0, 0, 1, 2, 1]
    assert packed.mask.tolist() == MASK[DIFFERENT].tolist()


def test_unpack_puts_each_token_in_its_place(packed):
    row = torch.arange(12.0).reshape(2, 6, 1)
    sentences = packed.unpack(row).squeeze(-1)
    assert sentences.shape == (6, 3)
    mask = MASK[DIFFERENT].repeat(2, 1)
    assert sentences[mask].tolist() == [0, 3, 4, 1, 5, 2, 6, 9, 10, 7, 11, 8]


def test_pack_undoes_unpack(packed):
    row = torch.randn(2, 6, 4)
    assert torch.equal(packed.pack(packed.unpack(row)), row)


def test_padding_takes_no_gradient_to_a_token(packed):
    row = torch.randn(1, 6, 1, requires_grad=True)
    packed.pack(packed.unpack(row)).sum().backward()
    assert row.grad.flatten().tolist() == [1.0] * 6


def test_attention_adds_nothing_to_tokens_and_excludes_padding(packed):
    bias = packed.attention_bias(2, torch.float64)
    assert bias.shape == (6, 1, 1, 3)
    assert bias.dtype == torch.float64
    expected = torch.where(MASK[DIFFERENT], 0.0, -torch.inf).repeat(2, 1)
    assert torch.equal(bias[:, 0, 0].float(), expected)


def test_equal_sentences_have_one_state(packed):
    row = torch.arange(6.0).reshape(1, 6, 1)
    assert packed.cls(row).flatten().tolist() == [0, 1, 1, 2]


def test_replaced_states_stand_first_and_the_other_tokens_stay(packed):
    """Of equal sentences the first speaks for all."""
    row = torch.arange(6.0, dtype=torch.float64).reshape(1, 6, 1)
    states = torch.tensor([10.0, 11.0, 20.0, 12.0]).reshape(1, 4, 1)
    replaced = packed.replace_cls(row, states)
    assert replaced.flatten().tolist() == [10, 11, 12, 3, 4, 5]
    assert replaced.dtype == torch.float64


def test_a_row_of_states_alone_is_replaced_whole(packed):
    assert packed.replace_cls(torch.zeros(1, 3, 1), torch.ones(1, 4, 1)).tolist() == [[[1.0]] * 3]


def test_one_sentence_a_class_as_long_as_all_others(packed):
    packed = PackedSentences(torch.tensor([[1, 2], [1, 3]]), torch.ones(2, 2, dtype=torch.long))
    assert packed.token_ids.tolist() == [1, 1, 2, 3]
    assert packed.mask.dtype == torch.bool


def test_nothing_of_it_is_saved(packed):
    assert not packed.state_dict()
    assert "token_ids" in dict(packed.named_buffers())


def test_joined_rows_hold_each_sentence_once_and_each_finds_its_tokens(packed):
    other = PackedSentences(
        torch.tensor([[1, 7, 0, 0], [1, 8, 9, 5]]), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    )
    joined = PackedSentences.joined(packed, other)
    assert joined.count == 4
    for part in (packed, other):
        places = part.places_in(joined)
        assert joined.token_ids[places].tolist() == part.token_ids.tolist()
        assert joined.positions[places].tolist() == part.positions.tolist()
        assert len(set(places.tolist())) == len(places)
