"""Swin UNETR, v1 and v2, as a backbone."""

from __future__ import annotations

from monai.networks.nets import SwinUNETR
from torch import Tensor

from scripts.networks.backbones.base import FusableBackbone, Fuse


class SwinUNETRBackbone(FusableBackbone):
    """Adapter of MONAI's ``SwinUNETR`` with text fused after each of its four Swin stages.

    At 96^3 with ``feature_size=48`` the stages are 24^3 x 96, 12^3 x 192, 6^3 x 384 and 3^3 x 768.

    Args:
        network: the stock 3D network (``use_v2=True`` for Swin UNETR V2).

    Raises:
        TypeError: ``network`` is not a MONAI ``SwinUNETR``.
        ValueError: an image that is a single cell at the last stage.

    Source:
        Hatamizadeh et al., "Swin UNETR" (2021); He et al., "SwinUNETR-V2" (2023).
    """

    def __init__(self, network: SwinUNETR) -> None:
        super().__init__()
        self._require(network, SwinUNETR)
        self.network = network
        patch_embedding = network.swinViT.patch_embed.proj
        width, patch = patch_embedding.out_channels, network.patch_size
        self.in_channels = patch_embedding.in_channels
        self.out_channels = network.out.conv.conv.out_channels
        self.stage_channels = tuple(width * 2**n for n in (1, 2, 3, 4))
        self.stage_strides = tuple(patch * 2**n for n in (1, 2, 3, 4))
        self.divisor = patch**5

    def encode_decode(self, image: Tensor, fuse: Fuse) -> Tensor:
        self._require_cells(image)
        net, swin = self.network, self.network.swinViT
        features = swin.pos_drop(swin.patch_embed(image))
        skips = [swin.proj_out(features, net.normalize)]
        for stage in (1, 2, 3, 4):
            if swin.use_v2:
                features = getattr(swin, f"layers{stage}c")[0](features.contiguous())
            features = fuse(stage, getattr(swin, f"layers{stage}")[0](features.contiguous()))
            skips.append(swin.proj_out(features, net.normalize))
        decoded = net.decoder5(net.encoder10(skips[4]), skips[3])
        decoded = net.decoder4(decoded, net.encoder4(skips[2]))
        decoded = net.decoder3(decoded, net.encoder3(skips[1]))
        decoded = net.decoder2(decoded, net.encoder2(skips[0]))
        return net.out(net.decoder1(decoded, net.encoder1(image)))
