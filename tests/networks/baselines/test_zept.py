from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scripts.losses.supervised import SupervisedLoss
from scripts.networks.baselines.zept import ZePT, anomaly_map, blocked_tokens
from scripts.networks.outputs import SupervisedOutput


class TestSize:
    @pytest.fixture(scope="class")
    @classmethod
    def network(cls, large_swin, published):
        table, hosts = published
        with torch.device("meta"):
            return ZePT(large_swin, table, alignment=True, softmax=False, hosts=hosts, text_width=768)

    def test_part_by_part(self, count, network):
        """The published network less what it never reads: 2,880 in the blocks, one norm, its unused projections."""
        unread = [1_536, 768, 384, 192]
        blocks = [count(block) + norms for block, norms in zip(network.grouping, unread, strict=True)]
        assert blocks == [14_769_408, 3_845_760, 964_416, 242_592]
        refinement = count(network.refinement) + count(network.interaction)
        assert refinement == 46_003_968
        assert count(network.interaction) == 2_363_904 + 4_723_968
        assert [network.organs.numel(), network.lesions.numel()] == [19_200, 5_376]
        assert [count(network.organ_kernels), count(network.lesion_kernels), count(network.norm)] == [4_656, 36_912, 96]
        assert count(network.anomaly_kernels) == 4_752
        assert count(network.align) + network.temperature.numel() == 592_129
        assert count(network) == 129_786_211 - 1_113_216

    def test_of_fifteen_organs(self, count, large_swin, sixteen):
        with torch.device("meta"):
            assert count(ZePT(large_swin, sixteen, alignment=True, text_width=768)) == 89_702_947

    def test_flops_at_96(self, network):
        with FlopCounterMode(display=False) as flops:
            assert network.eval()(torch.empty(1, 1, 96, 96, 96, device="meta")).shape == (1, 32, 96, 96, 96)
        assert flops.get_total_flops() / 1e9 == pytest.approx(685.12, rel=1e-3)


class TestAnomaly:
    def test_map_is_minus_the_best_score(self):
        queries, features = torch.randn(1, 3, 4), torch.randn(1, 4, 2, 2, 2)
        found = anomaly_map(queries, features)[0, 1, 0, 1]
        assert found == pytest.approx(-max(float(query @ features[0, :, 1, 0, 1]) for query in queries[0]), abs=1e-5)

    def test_lower_half_is_blocked(self):
        blocked = blocked_tokens(torch.tensor([0.0, 4.0, 5.0, 10.0]).view(1, 4, 1, 1))
        assert blocked.tolist() == [[True, True, False, False]]

    def test_constant_map_blocks_nothing(self):
        assert not blocked_tokens(torch.full((1, 4, 1, 1), 3.0)).any()


class TestForward:
    @pytest.fixture
    def make(self, small_swin, tiny_clip):
        def build(concepts, **arguments):
            backbone = small_swin()
            return ZePT(backbone, concepts, str(tiny_clip), prompt="{name}", **arguments).eval()

        return build

    @pytest.mark.parametrize(
        ("arguments", "channels"),
        [({}, 5), ({"hosts": {"liver tumour": ["liver"]}, "alignment": True}, 5), ({"softmax": False}, 4)],
    )
    def test_contract(self, make, keeps_the_contract, tumours, image, arguments, channels):
        network = make(tumours, **arguments)
        with_loss_of_all(network, image)
        keeps_the_contract(network, image, channels, tolerance=1e-2)

    @pytest.mark.parametrize("alignment", [False, True])
    def test_without_lesions(self, make, table, image, alignment):
        network = make(table, alignment=alignment)
        assert network(image[:1]).shape[1] == 4
        with_loss_of_all(network, image)

    @pytest.mark.parametrize("alignment", [False, True])
    def test_without_organs(self, make, tumours, image, alignment):
        network = make(tumours.only(["liver tumour"]), alignment=alignment, softmax=False)
        assert not hasattr(network, "grouping")
        with_loss_of_all(network, image)

    def test_anomaly_raises_the_lesion_and_lowers_its_host_alone(self, make, tumours, image):
        with_host, without = (make(tumours, hosts=hosts) for hosts in ({"liver tumour": ["liver"]}, {}))
        without.load_state_dict(with_host.state_dict())
        lowered, plain = with_host(image[:1]), without(image[:1])
        anomaly = plain[:, 3] - lowered[:, 3]
        queries = without._organ_queries(without.backbone(image[:1]))[-1]
        expected = anomaly_map(without.anomaly_kernels(queries), without.backbone(image[:1]).full)
        torch.testing.assert_close(anomaly, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(plain[:, [0, 1, 2, 4]], lowered[:, [0, 1, 2, 4]])

    def test_classes_permuted_outputs_permuted(self, make, tumours, image):
        network = make(tumours)
        plain = network(image[:1])
        network.organs.data = network.organs.data[[0, 3, 1, 2]]
        torch.testing.assert_close(network(image[:1]), plain[:, [0, 3, 1, 2, 4]], atol=1e-4, rtol=1e-4)

    def test_words_change_the_loss_and_not_the_output(self, make, tumours, image):
        network = make(tumours, alignment=True)
        changed = make(tumours.swapped("liver", "liver tumour"), alignment=True)
        changed.texts.prompt = network.texts.prompt = "{text}"
        network.texts.read(network.concepts), changed.texts.read(changed.concepts)
        made = changed.texts.frozen_texts.clone()
        changed.load_state_dict(
            {k: v for k, v in network.state_dict().items() if not k.startswith("texts.")}, strict=False
        )
        assert torch.equal(network(image[:1]), changed(image[:1]))
        assert not torch.allclose(made, network.texts.frozen_texts)
        losses = []
        for each in (network, changed):
            torch.manual_seed(0)
            loss = SupervisedLoss()
            loss(each.train()(image[:1]), torch.zeros(1, 1, 64, 32, 32))
            losses.append(loss.terms)
        assert losses[0]["query_to_query"] == losses[1]["query_to_query"]
        assert losses[0]["query_to_knowledge"] != losses[1]["query_to_knowledge"]

    def test_alignment_starts_at_the_scale_of_the_segmentation(self, make, tumours, image):
        loss = SupervisedLoss()
        loss(make(tumours, alignment=True).train()(image[:1]), torch.zeros(1, 1, 64, 32, 32))
        assert max(loss.terms["query_to_query"], loss.terms["query_to_knowledge"]) < 20


def with_loss_of_all(network, image):
    """Every parameter has a gradient where the loss has every term."""
    output = network.train()(image)
    target = torch.zeros(2, 1, *image.shape[2:])
    if not network.roles.background:
        target = target.expand(-1, len(network.concepts.classes), -1, -1, -1)
    SupervisedLoss(network.roles.background)(output, target).backward()
    assert isinstance(output, SupervisedOutput) == (network.align is not None)
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    network.zero_grad(set_to_none=False)
