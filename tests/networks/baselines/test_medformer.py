from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scripts.networks.baselines.bidirectional_attention import BidirectionalAttention, SemanticMap
from scripts.networks.baselines.medformer import MedFormer, PatchMerging

SMALL = {
    "stem_channels": 4,
    "channels": (4, 8, 8, 8),
    "num_heads": (1, 2, 2, 2, 2, 2, 1, 1),
    "map_tokens": 4,
    "fusion_width": 8,
    "fusion_heads": 2,
}
AMOS = {
    "kernels": [(3, 3, 3)] * 5,
    "scales": [(2, 2, 2)] * 4,
    "blocks": (2, 1, 0, 0, 0, 1, 2, 2),
    "attentions": (0, 1, 4, 6, 4, 1, 0, 0),
    "num_heads": (1, 4, 8, 10, 8, 4, 1, 1),
    "map_tokens": 64,
    "fusion_width": 320,
    "fusion_heads": 10,
    "act": "relu",
    "auxiliary_head": True,
}
# Parts for 1 image channel and 16 classes: stem, downs, their maps, their mergings, map fusion, ups.
PARTS = {
    "authors": (
        18_720,
        [156_800, 1_494_528, 5_526_016, 8_710_016],
        [691_200, 2_267_136, 3_386_880],
        [9_344, 39_680, 289_792, 710_656],
        1_150_464,
        [3_436_480, 918_016, 331_776, 82_944],
    ),
    "amos": (
        56_160,
        [465_664, 2_009_472, 8_439_808, 17_865_856],
        [663_552, 2_211_840, 3_317_760],
        [23_296, 79_360, 289_792, 710_656],
        1_683_840,
        [6_405_568, 1_420_928, 995_328, 248_832],
    ),
}
SETTINGS = {"authors": {}, "amos": AMOS}


def on_meta(**arguments):
    with torch.device("meta"):
        return MedFormer(1, 16, **arguments)


class TestSize:
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_is_the_published_one_part_by_part(self, count, setting):
        net = on_meta(**SETTINGS[setting])
        stem, downs, maps, mergings, fusion, ups = PARTS[setting]
        assert count(net.stem) == stem
        assert [count(part) for part in net.maps] == maps
        assert [count(part) for part in net.merge] == mergings
        down = [
            [net.merge[n], net.down[n]] + ([net.maps[n - 1], net.down_attentions[n - 1]] if n else []) for n in range(4)
        ]
        assert [sum(map(count, parts)) for parts in down] == downs
        assert count(net.fuse) == fusion
        up = [[net.up[n]] + ([net.merge_maps[n], net.up_attentions[n]] if n < 2 else []) for n in range(4)]
        assert [sum(map(count, parts)) for parts in up] == ups
        assert count(net.head) == 528

    @pytest.mark.parametrize(
        ("arguments", "total"),
        [({}, 21_826_288), (AMOS, 39_594_048), ({**AMOS, "auxiliary_head": False}, 39_591_984)],
    )
    def test_total(self, count, arguments, total):
        assert count(on_meta(**arguments)) == total

    def test_norms_of_the_fusion_are_the_only_ones_with_parameters(self):
        norms = [m for m in on_meta().modules() if "Norm" in type(m).__name__]
        assert sum(p.numel() for norm in norms for p in norm.parameters()) == 2_048

    def test_sizes_and_flops_at_96(self):
        network = on_meta().eval()
        sizes = []
        for level in network.merge:
            level.register_forward_hook(lambda _, inputs, output: sizes.append(tuple(output.shape[2:])))
        with FlopCounterMode(display=False) as flops:
            assert network(torch.empty(1, 1, 96, 96, 96, device="meta")).shape == (1, 16, 96, 96, 96)
        assert sizes == [(48, 48, 96), (24, 24, 96), (12, 12, 48), (6, 6, 24)]
        # Each direction computes the scores of voxels and map, once more than in the published code; that computes the
        # map that comes out of the last block, which nothing reads.
        voxels = {128: 24 * 24 * 96, 256: 12 * 12 * 48, 320: 6 * 6 * 24}
        scores = {width: 2 * voxels[width] * 72 * width for width in voxels}
        ours = flops.get_total_flops() - 3 * scores[128] - 4 * scores[256] - 2 * scores[320]
        assert round((ours + scores[128]) / 1e9, 2) == 690.77


class TestBidirectionalAttention:
    @pytest.fixture
    def block(self):
        torch.manual_seed(0)
        return BidirectionalAttention(4, 4, 4, num_heads=2, kernel=(3, 3, 3), act="gelu").double()

    def test_equals_a_plain_one(self, block):
        features = torch.randn(1, 4, 2, 3, 2, dtype=torch.float64)
        tokens = torch.randn(1, 4, 5, dtype=torch.float64)
        found, found_map = block(features, tokens)
        fq, fv = block.query_value(block.norm(features)).flatten(2)[0].chunk(2)  # C x N
        mq, mv = block.map_query_value(block.map_norm(tokens))[0].chunk(2)  # C x M
        attended, map_attended = torch.zeros_like(fv), torch.zeros_like(mv)
        for head in range(2):
            channels = [head, head + 2]  # (width, heads): a head's channels lie apart
            scores = fq[channels].T @ mq[channels] / math.sqrt(2)  # N x M
            attended[channels] = mv[channels] @ scores.softmax(1).T
            map_attended[channels] = fv[channels] @ scores.softmax(0)
        x = features + block.project(attended.view_as(features[0])[None])
        torch.testing.assert_close(found, block.mix(x))
        torch.testing.assert_close(found_map, tokens + block.map_project(map_attended[None]))

    def test_order_of_the_map_means_nothing(self, block):
        features, tokens = torch.randn(1, 4, 2, 2, 2).double(), torch.randn(1, 4, 5).double()
        order = torch.tensor([3, 1, 4, 0, 2])
        (plain, plain_map), (other, other_map) = block(features, tokens), block(features, tokens[..., order])
        torch.testing.assert_close(plain, other)
        torch.testing.assert_close(plain_map[..., order], other_map)

    def test_even_kernel_raises(self):
        with pytest.raises(ValueError, match=r"odd edges .* found \[3, 2, 3\]"):
            BidirectionalAttention(4, 4, 4, num_heads=2, kernel=(3, 2, 3), act="gelu")


def test_map_is_a_weighted_mean_of_voxels():
    torch.manual_seed(0)
    generate = SemanticMap(3, 2)
    features = torch.randn(1, 3, 2, 2, 3)
    values, weights = generate.values(features)[0].flatten(1), generate.weights(features)[0].flatten(1)
    for token in range(2):
        weight = weights[token].exp() / weights[token].exp().sum()
        torch.testing.assert_close(generate(features)[0, :, token], (values * weight).sum(1))


def test_merging_keeps_every_voxel_of_a_cell():
    merging = PatchMerging(1, 4, (2, 2, 1), (1, 1, 1))
    seen = []
    merging.mix.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.arange(16.0).view(1, 1, 4, 2, 2)
    merging(image)
    assert seen[0].shape == (1, 4, 2, 1, 2)
    assert set(seen[0][0, :, 0, 0, 1].tolist()) == set(image[0, 0, :2, :2, 1].flatten().tolist())


class TestForward:
    @pytest.fixture
    def image(self):
        return torch.randn(2, 1, 32, 32, 16, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize("auxiliary_head", [False, True])
    def test_contract(self, keeps_the_contract, image, auxiliary_head):
        torch.manual_seed(0)
        keeps_the_contract(MedFormer(1, 3, **SMALL, auxiliary_head=auxiliary_head), image, 3)

    def test_auxiliary_head_has_half_of_the_weight(self, image):
        output = MedFormer(1, 3, **SMALL, auxiliary_head=True)(image)
        assert output.weights == (0.5, 0.5)
        assert output.further[0].shape == output.logits.shape

    def test_edge_that_cannot_be_divided_raises(self, image):
        with pytest.raises(ValueError, match=r"multiples of \(16, 16, 4\); found \(32, 30, 16\)"):
            MedFormer(1, 3, **SMALL)(image[:, :, :, :30])

    def test_list_of_another_length_raises(self):
        with pytest.raises(ValueError, match=r"8 values as `blocks`; found \[2, 0\]"):
            MedFormer(1, 3, blocks=(2, 0))

    def test_attention_at_another_level_raises(self):
        with pytest.raises(ValueError, match=r"found `attentions` \[1, 2"):
            MedFormer(1, 3, attentions=(1, 2, 2, 2, 2, 2, 0, 0))
