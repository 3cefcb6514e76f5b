from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from scripts.networks.baselines.universal import Universal, dynamic_head


class TestSize:
    """The numbers of the published networks with Swin UNETR 48 and CLIP's vectors of 512."""

    @pytest.fixture(scope="class")
    @classmethod
    def network(cls, large_swin, sixteen):
        with torch.device("meta"):
            return Universal(large_swin, sixteen, None, text_width=512)

    def test_part_by_part(self, count, network):
        names = ("backbone", "reduce", "describe_image", "controller", "describe_class", "texts")
        parts = [count(getattr(network, name)) for name in names]
        assert parts == [62_186_610, 488, 198_400, 78_489, 131_328, 0]
        assert count(network) == 62_595_315

    def test_flops_at_96(self, network):
        network = network.eval().to("meta")
        with torch.no_grad(), FlopCounterMode(display=False) as flops:
            assert network(torch.empty(1, 1, 96, 96, 96, device="meta")).shape == (1, 16, 96, 96, 96)
        assert round(flops.get_total_flops() / 1e9, 2) == 640.40


def test_dynamic_head_equals_a_loop_over_images_and_classes():
    torch.manual_seed(0)
    features, parameters = torch.randn(2, 8, 3, 2, 2).double(), torch.randn(2, 3, 153).double()
    found = dynamic_head(features, parameters)
    for b in range(2):
        for n in range(3):
            theta = parameters[b, n]
            x = features[b : b + 1]
            x = F.conv3d(x, theta[:64].view(8, 8, 1, 1, 1), theta[136:144]).relu()
            x = F.conv3d(x, theta[64:128].view(8, 8, 1, 1, 1), theta[144:152]).relu()
            x = F.conv3d(x, theta[128:136].view(1, 8, 1, 1, 1), theta[152:153])
            torch.testing.assert_close(found[b, n], x[0, 0])


class TestForward:
    @pytest.fixture
    def make(self, small_swin, tiny_clip, table):
        def build(concepts=table, **arguments):
            backbone = small_swin()
            network = Universal(backbone, concepts, str(tiny_clip), **arguments)
            torch.manual_seed(1)
            torch.nn.init.normal_(network.controller.weight, std=0.3)  # so that words show
            return network.eval()

        return build

    def test_contract(self, make, keeps_the_contract, image):
        keeps_the_contract(make(), image, 4, tolerance=2e-3)

    def test_classes_permuted_outputs_permuted(self, make, table, permuted, image):
        network = make()
        plain = network(image[:1])
        other = Universal(network.backbone, permuted(table, [2, 0, 1]), network.texts.text_encoder)
        network.texts = other.texts
        torch.testing.assert_close(network(image[:1]), plain[:, [0, 3, 1, 2]])

    def test_words_changed_output_changed(self, make, table, image):
        network = make(prompt="{text}")
        edited = network.with_concepts(table.replace_sentences({"liver": {"shape": "A long tube."}}))
        plain, changed = network(image[:1]), edited(image[:1])
        assert torch.equal(plain[:, :3], changed[:, :3])
        assert not torch.allclose(plain[:, 3], changed[:, 3])

    def test_of_mulmodseg_is_universal_for_one_modality(self, make, table, image):
        prompt = "A {modality} of a {name}."
        one, two = make(prompt=prompt), make(prompt=prompt, modalities=["MR", "CT"])
        two.load_state_dict({**one.state_dict(), "texts.frozen_texts": two.texts.frozen_texts})
        torch.testing.assert_close(one(image[:1]), two(image[:1]))
        assert not torch.allclose(two(image[:1], modality=0), two(image[:1]))

    def test_unknown_modality_raises(self, make, image):
        with pytest.raises(ValueError, match=r"no modality 1; .*\(0, 'CT'\)"):
            make()(image, modality=1)

    def test_regions_have_no_background(self, make, image):
        assert make(softmax=False)(image[:1]).shape[1] == 3

    def test_starts_as_an_ordinary_head_of_all_classes(self, small_swin, tiny_clip, table):
        network = Universal(small_swin(), table, str(tiny_clip))
        assert network.controller.bias[:136].std().item() == pytest.approx(0.5, rel=0.2)
        assert not network.controller.bias[136:].any()
