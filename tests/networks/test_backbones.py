from __future__ import annotations

import pytest
import torch
from monai.networks.nets import SwinUNETR, UNet

from scripts.networks.backbones.swin_unetr import SwinUNETRBackbone

SMALL_SWIN = {
    "in_channels": 1,
    "out_channels": 3,
    "feature_size": 12,
    "window_size": 4,
    "depths": (1, 1, 1, 1),
}


class BackboneContract:
    """What every adapter keeps; a subclass gives its stock network."""

    edges = (64, 32, 32)

    def make(self):
        raise NotImplementedError

    @pytest.fixture
    def backbone(self):
        torch.manual_seed(0)
        return self.make()

    @pytest.fixture
    def image(self, backbone):
        return torch.randn(1, backbone.in_channels, *self.edges, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize("training", [False, True])
    def test_equals_its_stock_network_bit_for_bit(self, backbone, image, training):
        backbone.train(training)
        assert torch.equal(backbone(image), backbone.network(image))

    def test_fuses_four_stages_of_the_promised_shape(self, backbone, image):
        seen = []

        def fuse(stage, features):
            seen.append((stage, tuple(features.shape)))
            return features

        assert backbone(image, fuse).shape == (1, backbone.out_channels, *self.edges)
        assert seen == [
            (n + 1, (1, channels, *(edge // stride for edge in self.edges)))
            for n, (channels, stride) in enumerate(zip(backbone.stage_channels, backbone.stage_strides, strict=True))
        ]

    @pytest.mark.parametrize("stage", [1, 2, 3, 4])
    def test_fused_features_reach_later_stages_and_the_output(self, backbone, image, stage):
        def record(changed):
            seen = {}

            def fuse(n, features):
                seen[n] = features
                return (
                    features + torch.linspace(0, 1, features.shape[1]).view(1, -1, 1, 1, 1)
                    if n == changed
                    else features
                )

            return backbone(image, fuse), seen

        (plain, plain_seen), (fused, fused_seen) = record(None), record(stage)
        assert not torch.allclose(plain, fused)
        for n in (1, 2, 3, 4):
            assert torch.allclose(plain_seen[n], fused_seen[n]) == (n <= stage)

    def test_every_parameter_receives_a_gradient(self, backbone, image):
        backbone.train()(image).square().mean().backward()
        assert [name for name, p in backbone.named_parameters() if p.grad is None] == []

    def test_edge_that_cannot_be_divided_raises(self, backbone, image):
        with pytest.raises(ValueError, match=r"multiples of \d+; found \(64, 32, 30\)"):
            backbone(image[..., :30])

    def test_other_channel_count_raises(self, backbone, image):
        with pytest.raises(ValueError, match="was built for 1 image channel"):
            backbone(torch.cat([image, image], dim=1))

    def test_image_without_depth_raises(self, backbone, image):
        with pytest.raises(ValueError, match="expects a batch of 3D images"):
            backbone(image[..., 0])


class TestSwinUNETR(BackboneContract):
    def make(self):
        return SwinUNETRBackbone(SwinUNETR(**SMALL_SWIN))

    def test_stages_at_full_size_are_those_of_the_design(self):
        backbone = SwinUNETRBackbone(SwinUNETR(in_channels=1, out_channels=16, feature_size=48))
        assert backbone.stage_channels == (96, 192, 384, 768)
        assert backbone.stage_strides == (4, 8, 16, 32)
        assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 2) == 62.19

    def test_a_single_cell_at_the_last_stage_raises_in_training(self, backbone):
        with pytest.raises(ValueError, match="a single cell"):
            backbone.train()(torch.zeros(1, 1, 32, 32, 32))

    def test_another_network_raises(self):
        with pytest.raises(TypeError, match=r"adapts monai.networks.nets.SwinUNETR; found .*UNet"):
            SwinUNETRBackbone(UNet(3, 1, 2, channels=(4, 8), strides=(2,)))


class TestSwinUNETRV2(BackboneContract):
    def make(self):
        return SwinUNETRBackbone(SwinUNETR(**SMALL_SWIN, use_v2=True))
