from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scripts.losses.supervised import SupervisedLoss
from scripts.networks.baselines.cat import CAT

UNREAD = 6_144  # of two norms in each refiner and in PromptRefer, at the deepest level


class TestSize:
    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, large_swin, sixteen):
        def build(**arguments):
            with torch.device("meta"):
                both = {"anatomical": True, "alignment": True, "text_width": 768}
                return CAT(large_swin, sixteen, None, **{**both, **arguments})

        return build

    def test_of_the_last_level_part_by_part(self, count, make):
        network = make()
        assert count(network.refiners) + UNREAD // 2 == 22_449_408
        assert count(network.refer) + UNREAD // 2 == 19_494_912
        assert [count(part) for part in network.align.values()] == [590_592] * 3
        assert [count(network.kernels[0]), count(network.kernels[1])] == [36_912, 96]
        assert (network.queries.numel(), network.temperature.numel()) == (12_288, 1)
        assert count(network) == 105_952_003 - UNREAD

    def test_of_four_levels(self, count, make):
        network = make(levels=4)
        unread = [2 * 2 * width for width in (768, 384, 192, 96)]
        refiners = [count(part) + norms for part, norms in zip(network.refiners, unread, strict=True)]
        assert refiners == [22_449_408, 5_916_288, 1_483_584, 373_152]
        assert count(network.refer) + 2 * 2 * 96 == 307_968
        assert [count(part) for part in network.align.values()] == [9_312] * 3
        assert count(network) == 92_761_987 - sum(unread) - 2 * 2 * 96

    def test_flops_at_96(self, make):
        with FlopCounterMode(display=False) as flops:
            assert make().eval()(torch.empty(1, 1, 96, 96, 96, device="meta")).shape == (1, 16, 96, 96, 96)
        assert flops.get_total_flops() / 1e9 == pytest.approx(639.74, rel=1e-3)

    def test_levels_that_do_not_exist_raise(self, make):
        with pytest.raises(ValueError, match="1 to 4 `levels`; found 5"):
            make(levels=5)


class TestForward:
    @pytest.fixture
    def make(self, small_swin, tiny_clip):
        def build(concepts, **arguments):
            network = CAT(small_swin(), concepts, str(tiny_clip), prompt="{name}", **arguments).eval()
            if network.anatomical:
                network.anatomy.normal_(generator=torch.Generator().manual_seed(5))
            return network

        return build

    @pytest.mark.parametrize(
        ("arguments", "channels"),
        [({}, 5), ({"anatomical": True}, 5), ({"levels": 4, "anatomical": True}, 5), ({"softmax": False}, 4)],
    )
    def test_contract(self, make, keeps_the_contract, tumours, image, arguments, channels):
        keeps_the_contract(make(tumours, **arguments), image, channels, tolerance=1e-2)

    @pytest.mark.parametrize("anatomical", [False, True])
    def test_every_parameter_has_a_gradient_with_alignment(self, make, tumours, image, anatomical):
        network = make(tumours, alignment=True, anatomical=anatomical).train()
        loss = SupervisedLoss()
        loss(network(image), torch.zeros(2, 1, 64, 32, 32)).backward()
        assert [name for name, p in network.named_parameters() if p.grad is None] == []
        assert {"query_text"} | ({"query_anatomy"} if anatomical else set()) < set(loss.terms)

    def test_mask_opens_organs_to_organs_and_a_lesion_to_itself_and_its_host(self, make, tumours):
        network = make(tumours, anatomical=True, hosts={"liver tumour": ["liver"]})
        seen = (~network.blocked).tolist()
        organ, lesion = [True] * 4 + [False], [False, False, False, True, True]
        assert seen == [organ * 2] * 4 + [lesion * 2]

    def test_classes_permuted_outputs_permuted(self, make, table, permuted, image):
        network, order = make(table, anatomical=True), [2, 0, 1]
        plain = network(image[:1])
        other = make(permuted(table, order), anatomical=True)
        rows = [0, *(n + 1 for n in order)]
        state = {k: v for k, v in network.state_dict().items() if not k.startswith("texts.")}
        state |= {key: state[key][rows] for key in ("queries", "anatomy")}
        other.load_state_dict(state, strict=False)
        torch.testing.assert_close(other(image[:1]), plain[:, rows], atol=1e-4, rtol=1e-4)

    def test_words_changed_output_changed(self, make, table, image):
        network = make(table)
        network.texts.prompt = "{text}"
        changed = network.with_concepts(table.replace_sentences({"liver": {"shape": "A long tube."}}))
        assert not torch.allclose(network(image[:1]), changed(image[:1]), atol=1e-5)

    def test_anatomy_changed_output_changed(self, make, table, image):
        network = make(table, anatomical=True)
        plain = network(image[:1])
        network.anatomy.add_(1.0)
        assert not torch.allclose(network(image[:1]), plain, atol=1e-5)

    def test_two_runs_agree(self, make, table, image):
        network = make(table, anatomical=True)
        assert torch.equal(network(image[:1]), network(image[:1]))
