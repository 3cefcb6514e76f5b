from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.baselines.stunet import ResidualBlock, STUNet
from scripts.networks.outputs import SupervisedOutput

SMALL = {"channels": (2, 4, 4, 4, 4, 4), "depth": 1}
# Part by part, of the published networks with 1 image channel and 16 classes.
DOWN = {
    "S": [7_472, 42_208, 168_384, 672_640, 2_688_768, 3_606_272],
    "B": [28_768, 168_384, 672_640, 2_688_768, 10_751_488, 14_421_504],
}
UPSAMPLE = {"S": [65_792, 32_896, 8_256, 2_080, 528], "B": [262_656, 131_328, 32_896, 8_256, 2_080]}
UP = {"S": [5_441_280, 1_360_768, 340_416, 85_216, 21_360], "B": [21_761_536, 5_441_280, 1_360_768, 340_416, 85_216]}
HEADS = {"S": [272, 528, 1_040, 2_064], "B": [528, 1_040, 2_064, 4_112]}
LOWEST_HEAD = {"S": 4_112, "B": 8_208}
TOTAL = {"S": 14_552_352, "B": 58_173_936}


def on_meta(**arguments):
    with torch.device("meta"):
        return STUNet(1, 16, **arguments)


class TestSize:
    @pytest.mark.parametrize("size", ["S", "B"])
    def test_is_the_published_one_part_by_part(self, count, size):
        network = on_meta(size=size, deep_supervision=True)
        parts = [network.down, network.upsample, network.up, network.heads]
        found = [[count(module) for module in part] for part in parts]
        assert found == [DOWN[size], UPSAMPLE[size], UP[size], HEADS[size]]
        assert count(network) + LOWEST_HEAD[size] == TOTAL[size]

    @pytest.mark.parametrize(
        ("size", "down", "upsample", "up"),
        [("L", 246_968_256, 1_746_880, 191_378_624), ("H", 852_780_384, 3_928_992, 600_303_840)],
    )
    def test_of_the_large_ones(self, count, size, down, upsample, up):
        network = on_meta(size=size)
        assert [count(part) for part in (network.down, network.upsample, network.up)] == [down, upsample, up]

    def test_without_deep_supervision_lacks_the_unread_heads(self, count):
        assert count(on_meta()) == 58_158_512

    def test_shapes_at_96(self):
        network = on_meta(size="S", deep_supervision=True)
        output = network(torch.empty(1, 1, 96, 96, 96, device="meta"))
        edges = [x.shape for x in (output.logits, *output.further)]
        assert edges == [(1, 16, edge, edge, edge) for edge in (96, 48, 24, 12)]

    def test_unknown_size_raises(self):
        with pytest.raises(ValueError, match="sizes S, B, L, H; found `size` 'M'"):
            STUNet(1, 2, size="M")

    def test_wrong_number_of_stages_raises(self):
        with pytest.raises(ValueError, match=r"6 stages.*found \[4, 8\]"):
            STUNet(1, 2, channels=(4, 8))


class TestBlock:
    @pytest.mark.parametrize(("stride", "projected"), [(1, False), (2, True), ((1, 2, 2), True)])
    def test_equals_a_plain_one(self, stride, projected):
        torch.manual_seed(0)
        block = ResidualBlock(4, 4, stride, projected=projected)
        first, second = block.first.conv, block.second.conv
        norms = [m for m in block.modules() if isinstance(m, nn.InstanceNorm3d)]
        for norm in norms:
            nn.init.normal_(norm.weight)
        x = torch.randn(2, 4, 6, 6, 6)

        def normed(y, norm):
            mean, var = y.mean((2, 3, 4), keepdim=True), y.var((2, 3, 4), keepdim=True, unbiased=False)
            y = (y - mean) / torch.sqrt(var + 1e-5)
            return y * norm.weight.view(1, -1, 1, 1, 1) + norm.bias.view(1, -1, 1, 1, 1)

        y = normed(F.conv3d(x, first.weight, first.bias, stride=stride, padding=1), norms[0])
        y = torch.where(y > 0, y, 0.01 * y)
        y = normed(F.conv3d(y, second.weight, second.bias, padding=1), norms[1])
        short = F.conv3d(x, block.shortcut.conv.weight, block.shortcut.conv.bias, stride=stride) if projected else x
        y = y + short
        torch.testing.assert_close(block(x), torch.where(y > 0, y, 0.01 * y), atol=1e-5, rtol=1e-5)


class TestForward:
    @pytest.mark.parametrize("deep_supervision", [False, True])
    def test_contract(self, keeps_the_contract, image, deep_supervision):
        torch.manual_seed(0)
        keeps_the_contract(STUNet(1, 3, **SMALL, deep_supervision=deep_supervision), image, 3)

    def test_heads_weigh_as_in_nnunet(self, image):
        output = STUNet(1, 3, **SMALL, deep_supervision=True)(image)
        assert isinstance(output, SupervisedOutput)
        assert output.weights == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15])

    def test_strides_by_axis_are_filled_up(self):
        network = STUNet(1, 2, **SMALL, strides=[(1, 2, 2), 2])
        assert network.divisors == (2, 4, 4)
        assert network(torch.zeros(1, 1, 4, 4, 8)).shape == (1, 2, 4, 4, 8)

    def test_edge_that_cannot_be_divided_raises(self, image):
        with pytest.raises(ValueError, match=r"STUNet can only divide .* multiples of 32"):
            STUNet(1, 2, **SMALL)(image[..., :30])

    def test_single_cell_raises(self, image):
        with pytest.raises(ValueError, match=r"a single cell .* to 64"):
            STUNet(1, 2, **SMALL)(image[:, :, :32])

    def test_starts_as_he_has_it(self):
        torch.manual_seed(0)
        conv = STUNet(1, 2, channels=(64,) * 6, depth=1).down[1][0].second.conv
        assert conv.weight.std().item() == pytest.approx((2 / (1 + 1e-4) / (64 * 27)) ** 0.5, rel=0.02)
        assert not conv.bias.any()
