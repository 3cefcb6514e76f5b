from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNETR, BasicUNet, BasicUNetPlusPlus, SwinUNETR, UNet
from monai.networks.nets.unet import CheckpointUNet

from scripts.losses.total import BiPVLLoss
from scripts.networks.backbones.swin_unetr import SwinUNETRBackbone
from scripts.networks.backbones.unet import UNetBackbone
from scripts.networks.backbones.unetplusplus import UNetPlusPlusBackbone
from scripts.networks.backbones.unetr import UNETRBackbone
from scripts.networks.outputs import BiPVLOutput


def without_gradient(module):
    return [name for name, p in module.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


class BackboneContract:
    """What every adapter keeps, alone and within BiPVL-Seg; a subclass gives its stock network."""

    edges = (32, 16, 16)
    batch = 2
    num_heads = (1, 2, 4, 8)
    frozen = 0  # parameters that nothing reads

    def make(self, out_channels=3):
        raise NotImplementedError

    def stock(self, backbone, image):
        return backbone.network(image)

    @pytest.fixture
    def backbone(self):
        torch.manual_seed(0)
        return self.make()

    @pytest.fixture
    def image(self):
        return torch.randn(self.batch, 1, *self.edges, generator=torch.Generator().manual_seed(0))

    @pytest.fixture
    def text_guided(self, make_network):
        return make_network(make_backbone=self.make, num_heads=self.num_heads)

    @pytest.mark.parametrize("training", [False, True])
    def test_equals_its_stock_network_bit_for_bit(self, backbone, image, training):
        backbone.train(training)
        assert torch.equal(backbone(image), self.stock(backbone, image))

    def test_fuses_four_stages_of_the_promised_shape(self, backbone, image):
        seen = []

        def fuse(stage, features):
            seen.append((stage, tuple(features.shape)))
            return features

        assert backbone(image, fuse).shape == (self.batch, backbone.out_channels, *self.edges)
        assert seen == [
            (n + 1, (self.batch, channels, *(edge // stride for edge in self.edges)))
            for n, (channels, stride) in enumerate(zip(backbone.stage_channels, backbone.stage_strides, strict=True))
        ]
        assert len(seen) == 4

    @pytest.mark.parametrize("stage", [1, 2, 3, 4])
    def test_fused_features_reach_later_stages_and_the_output(self, backbone, image, stage):
        def record(changed):
            seen = {}

            def fuse(n, features):
                seen[n] = features
                ramp = torch.linspace(0, 1, features.shape[1]).view(1, -1, 1, 1, 1)
                return features + ramp if n == changed else features

            return backbone(image, fuse), seen

        (plain, plain_seen), (fused, fused_seen) = record(None), record(stage)
        assert not torch.allclose(plain, fused)
        for n in (1, 2, 3, 4):
            assert torch.allclose(plain_seen[n], fused_seen[n]) == (n <= stage)

    def test_skips_carry_the_fused_features(self, backbone, image):
        """A gradient from the output to what each stage hands on, with the way through the next stages cut off."""
        handed_on = []

        def cut(stage, features):
            handed_on.append(features.detach().requires_grad_())
            return handed_on[-1]

        backbone(image, cut).square().mean().backward()
        assert [features.grad is not None and bool(features.grad.any()) for features in handed_on] == [True] * 4

    def test_every_parameter_receives_a_gradient(self, backbone, image):
        backbone.train()(image).square().mean().backward()
        assert without_gradient(backbone) == []

    def test_frozen_parameters_are_those_that_nothing_reads(self, backbone, image):
        frozen = [p for p in backbone.parameters() if not p.requires_grad]
        assert len(frozen) == self.frozen
        before = backbone.eval()(image)
        with torch.no_grad():
            for parameter in frozen:
                parameter.add_(1.0)
        assert torch.equal(backbone(image), before)

    def test_edge_that_cannot_be_divided_raises(self, backbone, image):
        edge = self.edges[2] - 2
        with pytest.raises(ValueError, match=rf"multiples of {backbone.divisor}; found \(\d+, \d+, {edge}\)"):
            backbone(image[..., :edge])

    def test_other_channel_count_raises(self, backbone, image):
        with pytest.raises(ValueError, match="was built for 1 image channel"):
            backbone(torch.cat([image, image], dim=1))

    def test_image_without_depth_raises(self, backbone, image):
        with pytest.raises(ValueError, match="expects a batch of 3D images"):
            backbone(image[..., 0])

    def test_another_network_raises(self, backbone):
        name = type(backbone).__name__.removesuffix("Backbone")
        with pytest.raises(TypeError, match=rf"adapts monai.networks.nets.\w*{name[-4:]}\w*; found .*BasicUNet\."):
            type(backbone)(BasicUNet(3, 1, 2, features=(4,) * 6))

    def test_text_guided_network_equals_its_stock_network_at_initialisation(self, text_guided, image):
        text_guided.eval()
        with torch.no_grad():
            logits = text_guided(image)
            assert torch.equal(logits, self.stock(text_guided.backbone, image))
        assert logits.shape == (self.batch, 4, *self.edges)

    def test_words_reach_the_text_guided_segmentation(self, text_guided, awaken, table, image):
        network = awaken(text_guided).eval()
        with torch.no_grad():
            before = network(image)
            network.set_concepts(table.replace_sentences({"liver": {"shape": "A long thin tube."}}))
            assert not torch.allclose(network(image), before)

    def test_every_parameter_of_the_text_guided_network_receives_a_gradient(self, text_guided, awaken, image):
        network, loss = awaken(text_guided).train(), BiPVLLoss()
        output = network(image)
        stride = network.backbone.stage_strides[-1]
        assert isinstance(output, BiPVLOutput)
        assert output.class_map.shape == (self.batch, 4, *(edge // stride for edge in self.edges))
        target = torch.randint(0, 4, (self.batch, 1, *self.edges), generator=torch.Generator().manual_seed(2)).float()
        loss(output, target).backward()
        # Softmax over keys does not see a bias that shifts every key alike; token 0 is padding.
        assert [name for name in without_gradient(network) if not name.endswith("key.bias")] == []

    def test_text_guided_network_refuses_an_edge_that_cannot_be_divided(self, text_guided, image):
        with pytest.raises(ValueError, match=f"multiples of {text_guided.backbone.divisor}"):
            text_guided(image[..., :-2])


class NeedsCells:
    """Further, where the last stage is normalised over its cells."""

    works_in_evaluation = False  # batch norm does, with the statistics of training

    def test_a_single_cell_at_the_last_stage_raises(self, backbone):
        image = torch.zeros(1, 1, *(backbone.divisor,) * 3)
        for training in (True, False) if not self.works_in_evaluation else (True,):
            with pytest.raises(ValueError, match=f"a single cell .* to {2 * backbone.divisor}"):
                backbone.train(training)(image)
        if self.works_in_evaluation:
            assert torch.equal(backbone.eval()(image), self.stock(backbone, image))


class TestSwinUNETR(BackboneContract, NeedsCells):
    edges = (64, 32, 32)
    batch = 1
    num_heads = (3, 6, 12, 24)
    use_v2 = False

    def make(self, out_channels=3):
        sizes = {"feature_size": 12, "window_size": 4, "depths": (1, 1, 1, 1)}
        return SwinUNETRBackbone(SwinUNETR(in_channels=1, out_channels=out_channels, use_v2=self.use_v2, **sizes))

    def test_strides_are_those_of_the_design(self, backbone):
        assert backbone.stage_channels == (24, 48, 96, 192)
        assert backbone.stage_strides == (4, 8, 16, 32)


class TestSwinUNETRV2(TestSwinUNETR):
    use_v2 = True


class TestUNet(BackboneContract, NeedsCells):
    """As in `configs/backbone_unet.yaml`, a quarter as wide."""

    arguments = {"num_res_units": 2, "norm": "BATCH"}  # noqa: RUF012 - read only
    works_in_evaluation = True

    def make(self, out_channels=3):
        shape = {"channels": (4, 8, 16, 32, 64), "strides": (2, 2, 2, 2)}
        return UNetBackbone(UNet(3, 1, out_channels, **shape, **self.arguments))

    def test_stages_are_the_strided_layers(self, backbone):
        assert backbone.stage_channels == (4, 8, 16, 32)
        assert backbone.stage_strides == (2, 4, 8, 16)

    def test_bottleneck_reads_the_fused_last_stage(self, backbone, image):
        seen = []
        bottleneck = backbone.network.model[1].submodule[1].submodule[1].submodule[1].submodule
        bottleneck.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        fused = []
        backbone(image, lambda stage, features: fused.append(features + 1) or fused[-1])
        assert torch.equal(seen[0], fused[3])

    @pytest.mark.parametrize("channels", [(4, 8, 16, 32), (4, 8, 16, 32, 64, 128)])
    def test_another_number_of_levels_raises(self, channels):
        found = rf"found a 3D UNet with {len(channels) - 1} skip connection\(s\), channels \(4, 8"
        with pytest.raises(ValueError, match=rf"fuses 4 stages .* {found}"):
            UNetBackbone(UNet(3, 1, 2, channels=channels, strides=(2,) * (len(channels) - 1)))

    def test_two_dimensions_raise(self):
        with pytest.raises(ValueError, match="found a 2D UNet"):
            UNetBackbone(UNet(2, 1, 2, channels=(4,) * 5, strides=(2,) * 4))

    def test_checkpointed_variant_raises(self):
        with pytest.raises(ValueError, match=r"CheckpointUNet with 1 skip connection\(s\)"):
            UNetBackbone(CheckpointUNet(3, 1, 2, channels=(4,) * 5, strides=(2,) * 4))

    def test_strides_by_axis_raise(self):
        with pytest.raises(ValueError, match=r"one whole number a level .* found \(\(2, 2, 1\), 2, 2, 2\)"):
            UNetBackbone(UNet(3, 1, 2, channels=(4,) * 5, strides=((2, 2, 1), 2, 2, 2)))


class TestPlainUNet(TestUNet):
    """Without residual units every layer is a plain convolution; MONAI's default norm."""

    arguments = {"num_res_units": 0}  # noqa: RUF012 - read only
    works_in_evaluation = False


class TestUNetPlusPlus(BackboneContract, NeedsCells):
    deep_supervision = False
    frozen = 6  # weight and bias of three heads

    def make(self, out_channels=3):
        sizes = {"features": (4, 4, 8, 16, 32, 4), "deep_supervision": self.deep_supervision}
        return UNetPlusPlusBackbone(BasicUNetPlusPlus(3, 1, out_channels, **sizes))

    def stock(self, backbone, image):
        return backbone.network(image)[-1]

    def test_stages_are_the_first_column(self, backbone):
        assert backbone.stage_channels == (4, 8, 16, 32)
        assert backbone.stage_strides == (2, 4, 8, 16)

    @pytest.mark.parametrize("stage", [1, 2, 3, 4])
    def test_nested_nodes_read_the_fused_features(self, backbone, image, stage):
        """x_i,0 goes up into x_i-1,1 and across, within a concatenation, into every x_i,j."""
        network, up, across = backbone.network, [], []
        getattr(network, f"upcat_{stage - 1}_1").register_forward_pre_hook(lambda _, inputs: up.append(inputs[0]))
        for j in range(1, 5 - stage):
            getattr(network, f"upcat_{stage}_{j}").register_forward_pre_hook(lambda _, inputs: across.append(inputs[1]))
        fused = []
        backbone(image, lambda n, features: fused.append(features + n) or fused[-1])
        expected = fused[stage - 1]
        assert torch.equal(up[0], expected)
        assert len(across) == 4 - stage
        for skip in across:
            assert torch.equal(skip[:, : expected.shape[1]], expected)

    def test_two_dimensions_raise(self):
        with pytest.raises(ValueError, match="needs `spatial_dims` 3; the network ends in a Conv2d"):
            UNetPlusPlusBackbone(BasicUNetPlusPlus(2, 1, 2, features=(4,) * 6))


class TestDeeplySupervisedUNetPlusPlus(TestUNetPlusPlus):
    deep_supervision = True


class TestUNETR(BackboneContract):
    num_heads = (2, 2, 2, 2)
    frozen = 24  # weight and bias of a norm in 12 blocks
    proj_type = "conv"

    def make(self, out_channels=3):
        sizes = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 48, "num_heads": 2}
        return UNETRBackbone(UNETR(1, out_channels, img_size=self.edges, proj_type=self.proj_type, **sizes))

    def test_stages_are_the_taps_of_the_decoder(self, backbone, image):
        """After blocks 4, 7 and 10, and after the norm that follows block 12."""
        vit, states = backbone.network.vit, []
        for module in (vit.blocks[3], vit.blocks[6], vit.blocks[9], vit.norm):
            module.register_forward_hook(lambda _, inputs, output: states.append(output))
        fused = []
        backbone(image, lambda stage, features: fused.append(features) or features)
        assert len(fused) == len(states) == 4
        for features, tokens in zip(fused, states, strict=True):
            assert torch.equal(features.flatten(2).transpose(1, 2), tokens)

    def test_image_of_another_size_raises(self, backbone):
        with pytest.raises(ValueError, match=r"built for images of \(32, 16, 16\); found \(16, 16, 32\)"):
            backbone(torch.zeros(1, 1, 16, 16, 32))

    def test_another_depth_raises(self):
        network = UNETR(1, 2, img_size=16, feature_size=4, hidden_size=8, mlp_dim=8, num_heads=1)
        network.vit.blocks = network.vit.blocks[:9]
        with pytest.raises(ValueError, match=r"12 transformer blocks, .* found 3D with 9"):
            UNETRBackbone(network)


class TestPerceptronUNETR(TestUNETR):
    proj_type = "perceptron"
