"""Swin UNETR without its last convolution, as the text systems of other methods read it."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from monai.networks.nets import SwinUNETR
from torch import Tensor, nn

from scripts.networks.image_checks import check_cells, check_image


class Features(NamedTuple):
    """What is read of an image; with feature size f and n from 0 (the deepest) to 3 the channels are 16f / 2^n.

    Attributes:
        full: the decoder's last features, B x f x H x W x D.
        states: of the encoder, normalised, the deepest first: B x 16f / 2^n x H / (32 / 2^n) x ...
        decoded: of the bottleneck and the first three decoder stages, of the same shapes.
    """

    full: Tensor
    states: tuple[Tensor, ...]
    decoded: tuple[Tensor, ...]


class SwinFeatures(nn.Module):
    """MONAI's ``SwinUNETR`` with its features in place of its logits; 62,186,610 parameters for one channel.

    Args:
        network: the stock 3D network; its last convolution is taken away.

    Attributes:
        channels: f, of the full-resolution features.
        widths: of the four states, the deepest first.

    Raises:
        TypeError: it is no ``SwinUNETR``.
        ValueError: in ``forward``, an image that cannot be divided by 32, or is a single cell at the last stage.
    """

    def __init__(self, network: SwinUNETR) -> None:
        super().__init__()
        if not isinstance(network, SwinUNETR):
            raise TypeError(f"SwinFeatures reads monai.networks.nets.SwinUNETR; found a {type(network).__name__}.")
        embedding = network.swinViT.patch_embed.proj
        self.in_channels = int(embedding.in_channels)
        self.channels = int(embedding.out_channels)
        self.widths = tuple(self.channels * 2**n for n in (4, 3, 2, 1))
        self.divisors = (network.patch_size**5,) * 3
        network.out = cast(Any, nn.Identity())
        self.network = network

    def forward(self, image: Tensor) -> Features:
        """Read a batch of images (B x in_channels x H x W x D)."""
        check_image(image, type(self).__name__, self.in_channels, self.divisors)
        check_cells(image, type(self).__name__, self.divisors)
        net = self.network
        states = net.swinViT(image, net.normalize)
        decoded = [net.encoder10(states[4])]
        decoded.append(net.decoder5(decoded[-1], states[3]))
        decoded.append(net.decoder4(decoded[-1], net.encoder4(states[2])))
        decoded.append(net.decoder3(decoded[-1], net.encoder3(states[1])))
        last = net.decoder2(decoded[-1], net.encoder2(states[0]))
        full = net.decoder1(last, net.encoder1(image))
        return Features(full, tuple(reversed(states[1:])), tuple(decoded))
