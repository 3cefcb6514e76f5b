"""U-Net as a backbone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate
from operator import mul
from typing import cast

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import UNet
from torch import Tensor, nn

from scripts.networks.backbones.base import FusableBackbone, Fuse

_STAGES = 4


class UNetBackbone(FusableBackbone):
    """Adapter of MONAI's ``UNet`` with text fused after each of its four strided encoder layers.

    The network is nested: a level is a layer down, a skip connection around the next level, a layer up. Stages
    1 to 4 are the layers down; the layer at the bottom, which does not stride, is the bottleneck and reads the
    fused V_4. With ``channels=(16, 32, 64, 128, 256)`` and strides of 2, the stages at 96^3 are 48^3 x 16,
    24^3 x 32, 12^3 x 64 and 6^3 x 128.

    Args:
        network: the stock 3D network with five ``channels`` and whole numbers as ``strides``.

    Raises:
        TypeError: ``network`` is not a MONAI ``UNet``.
        ValueError: it has another number of levels, is not 3D or strides by axis; an image that is a single
            cell at the last stage, in training or under instance norm.

    Source:
        Ronneberger et al., "U-Net" (2015); residual units after Kerfoot et al. (2018).
    """

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self._require(network, UNet)
        levels = sum(1 for _ in _levels(network.model))
        if levels != _STAGES or network.dimensions != 3:
            raise ValueError(
                f"UNetBackbone fuses {_STAGES} stages of a 3D network: five `channels`, the last of them the "
                f"bottleneck's, and four `strides`; found a {network.dimensions}D {type(network).__name__} with "
                f"{levels} skip connection(s), channels {tuple(network.channels)}."
            )
        strides = tuple(network.strides)[:_STAGES]
        if not all(isinstance(stride, int) for stride in strides):
            raise ValueError(f"UNetBackbone needs one whole number a level as `strides`; found {strides}.")
        self.network = network
        self.in_channels = network.in_channels
        self.out_channels = network.out_channels
        self.stage_channels = tuple(network.channels)[:_STAGES]
        self.stage_strides = tuple(accumulate(strides, mul))
        self.divisor = math.prod(strides)

    def encode_decode(self, image: Tensor, fuse: Fuse) -> Tensor:
        self._require_cells(image)
        return _run_level(self.network.model, image, fuse, stage=1)


def _levels(block: nn.Module) -> Iterator[nn.Module]:
    while isinstance(block, nn.Sequential) and len(block) == 3 and isinstance(block[1], SkipConnection):
        yield block
        block = block[1].submodule


def _run_level(block: nn.Module, features: Tensor, fuse: Fuse, stage: int) -> Tensor:
    """Run one level and all below it; below the last stage, the bottleneck."""
    if stage > _STAGES:
        return block(features)
    down, skip, up = block.children()
    features = fuse(stage, down(features))
    below = _run_level(cast(nn.Module, skip.submodule), features, fuse, stage + 1)
    return up(torch.cat([features, below], dim=1))
