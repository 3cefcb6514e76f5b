from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.losses.alignment import AlignmentLoss
from scripts.networks.attention import Attention
from scripts.report.model_figures import attention_figure, sentences_figure, similarity_figure, tsne
from scripts.report.model_files import coarser
from scripts.report.model_view import attended, attention_maps, mean_weights, sentence_states, similarities

IMAGE = torch.randn(1, 1, 64, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["words", "channels"])
def network(make_network, request):
    return make_network(head=request.param).eval()


def test_similarities_are_those_of_the_loss(network) -> None:
    matrices = similarities(network, IMAGE)
    assert matrices.shape == (3, 3, 3)
    _, terms = AlignmentLoss().eval()(network.examine(IMAGE))
    found = (matrices[0].argmax(axis=1) == np.arange(3)).mean()
    assert found == pytest.approx(float(terms["top1_vision_to_text"]))


def test_examination_leaves_the_network_in_evaluation(network) -> None:
    before = network(IMAGE)
    output = network.examine(IMAGE)
    assert not network.training
    torch.testing.assert_close(output.logits, before)


def test_weights_are_those_of_plain_attention() -> None:
    torch.manual_seed(0)
    module = Attention(6, 2)
    tokens, context = torch.randn(1, 5, 6), torch.randn(1, 4, 6)
    query, key = module.query(tokens), module.key(context)
    heads = [torch.softmax(query[..., h] @ key[..., h].mT / 3**0.5, -1) for h in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(mean_weights(module, tokens, context), (heads[0] + heads[1]) / 2)


def test_each_place_shares_its_attention_out(network) -> None:
    maps = attention_maps(network, IMAGE)
    shapes = {1: (6, 16, 8, 8), 2: (6, 8, 4, 4), 3: (6, 4, 2, 2), 4: (6, 2, 1, 1)}
    assert {stage: found.shape for stage, found in maps.items()} == shapes
    for found in maps.values():
        np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-4)
    hooks = [module._forward_pre_hooks for module in network.modules()]
    assert not any(hooks), "the network is as it was"


def test_states_are_those_that_kernels_are_made_of(make_network, table) -> None:
    network = make_network(head="words").eval()
    states = sentence_states(network.text_encoder, table.sentences_flat)
    expected = network._read_words(network.asked).detach().flatten(0, 1).numpy()
    np.testing.assert_allclose(states, expected, atol=1e-5)


def test_attention_that_says_nothing_is_seen_to() -> None:
    masks = np.zeros((2, 4, 4, 4), dtype=np.float32)
    masks[0, :2], masks[1, 2:] = 1, 1
    found = attended(1, np.full((4, 4, 4, 4), 0.25, dtype=np.float32), masks)
    assert (found.entropy, found.contrast, found.inside, found.tells) == (pytest.approx(1), 0, (1.0, 1.0), False)


def test_attention_to_the_own_mask_tells() -> None:
    masks = np.zeros((2, 4, 4, 4), dtype=np.float32)
    masks[0, :2], masks[1, 2:] = 1, 1
    maps = np.stack([masks[0], masks[0], masks[1], masks[1]]) * 0.3 + 0.1
    found = attended(1, maps, masks)
    assert found.inside == (pytest.approx(4), pytest.approx(4))
    assert found.contrast == pytest.approx(0.15 / 0.25)
    assert found.entropy == pytest.approx(-(0.8 * np.log(0.4) + 0.2 * np.log(0.1)) / np.log(4))
    assert found.tells


def test_class_outside_the_patch_has_no_ratio() -> None:
    found = attended(1, np.full((2, 2, 2, 2), 0.5, dtype=np.float32), np.zeros((2, 2, 2, 2), dtype=np.float32))
    assert np.isnan(found.inside).all()
    assert not found.tells


def test_cells_cover_the_voxels_that_they_stand_for() -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    found = coarser(affine, (8, 8, 8), (2, 4, 8))
    np.testing.assert_allclose(found @ [0, 0, 0, 1], [3.0, 1.5, 0, 1])
    np.testing.assert_allclose(np.diag(found), [8, 6, 4, 1])


class TestFigures:
    states = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)

    def test_sentences_are_coloured_by_concept_and_by_class(self) -> None:
        figure = sentences_figure({"before training": self.states, "after training": self.states + 1}, "abc", "xy")
        counts = [[len(drawn.get_offsets()) for drawn in axes.collections] for axes in figure.axes]
        assert counts == [[3, 3], [2, 2, 2]] * 2

    def test_few_sentences_have_no_map(self) -> None:
        with pytest.raises(ValueError, match="at least 4 sentences; found 3"):
            tsne(self.states[:3])

    def test_sentences_with_one_state_have_no_map(self) -> None:
        with pytest.raises(ValueError, match="one state"):
            tsne(np.ones((6, 8)))

    def test_equal_sentences_may_coincide(self) -> None:
        points = tsne(np.concatenate([self.states, self.states]))
        assert np.isfinite(points).all()

    def test_matrices_are_drawn_global_first(self) -> None:
        matrices = np.arange(27).reshape(3, 3, 3) / 27
        figure = similarity_figure(matrices, "abc", ["shape", "place"])
        assert [axes.get_title() for axes in figure.axes[:3]] == ["global", "shape", "place"]
        np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), matrices[1])

    def test_maps_are_relative_to_their_mean(self) -> None:
        maps = np.ones((2, 2, 2, 2), dtype=np.float32)
        maps[0, 0] = 3
        masks = np.zeros((1, 4, 4, 4), dtype=np.uint8)
        masks[0, 1:3, 1:3, 1:3] = 1
        figure = attention_figure(np.ones((4, 4, 4)), maps, masks, ["liver"], ["shape", "place"])
        tiles = [image.get_array() for image in figure.axes[0].images[1::2]]
        np.testing.assert_allclose(tiles[0], [[np.log2(0.5), np.log2(1.5)]] * 2, atol=1e-5)
        np.testing.assert_allclose(tiles[1], 0)
