from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scripts.networks.baselines.nnformer import NNFormer
from scripts.networks.baselines.skip_attention import SkipWindowAttention

SMALL = {"channels": 8, "num_heads": (1, 1, 2, 2), "windows": (2, 2, 4, 2)}


def on_meta(roi=(96, 96, 96), ends=(1, 16), **arguments):
    with torch.device("meta"):
        return NNFormer(*ends, roi, **arguments)


class TestSize:
    """The numbers of the published network at 96^3, 1 image channel and 16 classes."""

    @pytest.fixture(scope="class")
    @classmethod
    def network(cls):
        return on_meta(deep_supervision=True)

    def test_embedding(self, count, network):
        assert [count(part) for part in network.embedding] == [252_000, 1_493_760, 384]

    def test_encoder(self, count, network):
        downs = [*map(count, network.down), 0]
        stages = [count(blocks) + down for blocks, down in zip(network.encoder, downs, strict=True)]
        assert stages == [2_885_268, 11_521_320, 46_093_200, 56_675_040]
        assert [count(blocks[0]) for blocks in network.encoder] == [446_922, 1_778_580, 7_119_816, 28_337_520]
        assert [count(norm) for norm in network.norms] == [384, 768, 1_536, 3_072]

    def test_decoder(self, count, network):
        stages = [count(up) + count(blocks) for up, blocks in zip(network.up, network.decoder, strict=True)]
        assert stages == [23_090_064, 5_770_536, 1_447_572]
        assert [count(blocks[0]) for blocks in network.decoder] == [6_529_224, 1_630_740, 409_866]

    def test_heads_and_total(self, count, network):
        assert (count(network.heads), count(network)) == (688_176, 149_923_080)
        alone = on_meta()
        assert (count(alone.heads), count(alone)) == (98_320, 149_333_224)

    def test_of_the_setting_for_brain_tumours(self, count):
        small = {"channels": 96, "num_heads": (3, 6, 12, 24), "decoder_heads": (6, 12, 24), "patch_size": (4, 4, 4)}
        assert count(on_meta(**small)) == 37_518_946
        assert count(on_meta((128,) * 3, (4, 4), deep_supervision=True, **small)) == 37_754_190

    def test_of_the_published_crop(self, count):
        assert count(on_meta((128, 128, 64), (1, 14), deep_supervision=True)) == 150_054_210

    def test_flops_at_96(self):
        network = on_meta().eval()
        with FlopCounterMode(display=False) as flops:
            assert network(torch.empty(1, 1, 96, 96, 96, device="meta")).shape == (1, 16, 96, 96, 96)
        assert round(flops.get_total_flops() / 1e9, 2) == 356.55

    def test_windows_that_reach_an_edge_become_it_and_do_not_shift(self, network):
        assert network.windows == [4, 4, 6, 3]
        assert [blocks[1].shift_size[0] for blocks in network.encoder] == [2, 2, 0, 0]
        assert [blocks[0].shift_size[0] for blocks in network.encoder] == [0] * 4

    def test_stochastic_depth_is_highest_at_the_highest_resolution_of_the_decoder(self, network):
        assert network.decoder[-1][1].drop_path.drop_prob == pytest.approx(0.2)
        assert network.decoder[-1][0].drop_path.drop_prob == pytest.approx(0.16)
        assert network.encoder[-1][1].drop_path.drop_prob == pytest.approx(0.2)


class TestSkipAttention:
    def test_equals_a_plain_one(self):
        torch.manual_seed(0)
        attention = SkipWindowAttention(4, 2, (2, 2, 2)).double()
        up, skip = torch.randn(2, 1, 4, 2, 2, 4, dtype=torch.float64)
        found = attention(up, skip)
        cells = [(x, y, z) for x in range(2) for y in range(2) for z in range(2)]
        key, value = attention.key_value(skip).chunk(2, dim=-1)
        for corner in (0, 2):
            for n, (x, y, z) in enumerate(cells):
                rows = []
                for head in range(2):
                    part = slice(2 * head, 2 * head + 2)
                    scores = []
                    for m, (a, b, c) in enumerate(cells):
                        index = ((x - a + 1) * 3 + (y - b + 1)) * 3 + (z - c + 1)
                        assert attention.bias_index[n, m] == index
                        dot = up[0, corner + x, y, z, part] @ key[0, corner + a, b, c, part]
                        scores.append(dot / math.sqrt(2) + attention.bias_table[index, head])
                    weights = torch.stack(scores).softmax(0)
                    rows.append(
                        sum(w * value[0, corner + a, b, c, part] for w, (a, b, c) in zip(weights, cells, strict=True))
                    )
                torch.testing.assert_close(found[0, corner + x, y, z], attention.project(torch.cat(rows)))

    @pytest.mark.parametrize("window", [3, 4])
    def test_every_offset_has_a_bias_of_its_own(self, window):
        index = SkipWindowAttention(4, 1, (window,) * 3).bias_index
        assert len(index.unique()) == (2 * window - 1) ** 3


class TestForward:
    @pytest.mark.parametrize("deep_supervision", [False, True])
    def test_contract(self, keeps_the_contract, image, deep_supervision):
        torch.manual_seed(0)
        network = NNFormer(1, 3, (64, 32, 32), **SMALL, deep_supervision=deep_supervision, drop_path=0.0)
        keeps_the_contract(network, image, 3)

    def test_skip_reaches_the_output_through_attention_alone_too(self, image):
        """Shortcut and keys are two ways: with the shortcut's projection cut, the attention still carries the skip."""
        torch.manual_seed(0)
        block = NNFormer(1, 2, (64, 32, 32), **SMALL).decoder[-1][0].eval()
        up, skip = torch.randn(2, 1, 4, 4, 4, 8)
        with torch.no_grad():
            block.attention.project.weight.zero_()
            plain = block(up, skip)
            block.attention.project.weight.normal_()
            assert not torch.allclose(block(up, skip), plain)

    def test_larger_image_is_cut_into_the_same_windows(self, image):
        network = NNFormer(1, 2, (32, 32, 32), **SMALL).eval()
        assert network(image[:1]).shape == (1, 2, 64, 32, 32)

    def test_smaller_image_raises(self, image):
        network = NNFormer(1, 2, (64, 64, 64), **SMALL)
        with pytest.raises(ValueError, match=r"smaller at stage \d than the windows"):
            network(image[:, :, :32])

    def test_roi_that_cannot_be_divided_raises(self):
        with pytest.raises(ValueError, match=r"multiples of \(32, 32, 16\); found \(40, 32, 32\)"):
            NNFormer(1, 2, (40, 32, 32), **SMALL)

    def test_patch_of_another_size_raises(self):
        with pytest.raises(ValueError, match=r"2 or 4; found \[8, 4, 4\]"):
            NNFormer(1, 2, (64, 32, 32), patch_size=(8, 4, 4))
