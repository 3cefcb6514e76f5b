"""STU-Net: a residual U-Net whose depth and width grow together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import cast

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from scripts.networks.image_checks import check_cells, check_image
from scripts.networks.outputs import SupervisedOutput

Stride = int | Sequence[int]

SLOPE = 0.01
LEVELS = 5  # strided stages below the first
SIZES = {
    "S": ((16, 32, 64, 128, 256, 256), 1),
    "B": ((32, 64, 128, 256, 512, 512), 1),
    "L": ((64, 128, 256, 512, 1024, 1024), 2),
    "H": ((96, 192, 384, 768, 1536, 1536), 3),
}
"""Channels of the six stages and residual blocks a stage of the published networks."""
HEAD_WEIGHTS = tuple(weight / 15 for weight in (8, 4, 2, 1))
"""Of nnU-Net's deep supervision: halved from head to head, and 0 for the head of the lowest resolution."""


class ResidualBlock(nn.Module):
    """Two 3^3 convolutions with instance norm around a shortcut, which is a 1^3 convolution without a norm or nothing.

    Shapes: B x in_channels x H x W x D to B x out_channels x H/s x W/s x D/s.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: s, of the first convolution and the shortcut; one number or one an axis.
        projected: whether the shortcut is a convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Stride = 1, *, projected: bool) -> None:
        super().__init__()
        norm = ("instance", {"affine": True})
        act = ("leakyrelu", {"negative_slope": SLOPE})
        self.first = Convolution(3, in_channels, out_channels, stride, adn_ordering="NA", norm=norm, act=act)
        self.second = Convolution(3, out_channels, out_channels, adn_ordering="N", norm=norm)
        self.shortcut: nn.Module = nn.Identity()
        if projected:
            self.shortcut = Convolution(3, in_channels, out_channels, stride, kernel_size=1, conv_only=True)
        self.act = nn.LeakyReLU(SLOPE)

    def forward(self, features: Tensor) -> Tensor:
        return self.act(self.second(self.first(features)) + self.shortcut(features))


class STUNet(nn.Module):
    """Scalable and transferable U-Net: residual stages, six down and five up, of convolutions alone.

    Upsampling repeats voxels and then maps channels by a 1^3 convolution, so that its weights do not depend on the
    stride. In evaluation ``forward`` returns the logits (B x C x H x W x D), in training too, unless
    ``deep_supervision``: then a ``SupervisedOutput`` with the logits of the four upper decoder stages.

    Parameters for 1 image channel and 16 classes: S 14.5, B 58.2, L 440, H 1457 million.

    Deviations:
        - No head is built that no loss reaches. The published network has five, of which the lowest has the weight 0;
          without deep supervision only the first is read.
        - He's initialisation, which the authors' first version has and their second one lost.

    Of the published code: the trainer for nnU-Net's second version fails with nnU-Net since the plans lost their key
    for the strides and the builder of the network got other arguments.

    Args:
        in_channels: of the image.
        out_channels: C.
        size: one of ``SIZES``.
        channels: of the six stages, in place of the size's.
        depth: residual blocks a stage, in place of the size's.
        strides: of the five lower stages, each one number or one an axis; cut to five, or filled up with 1.
        deep_supervision: whether four heads are trained.

    Raises:
        ValueError: an unknown size, or not six numbers of channels; in ``forward``, an image that the strides do not
            divide, or that is a single cell at the last stage.

    Source:
        Huang et al., "STU-Net: Scalable and Transferable Medical Image Segmentation Models" (2023).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        size: str = "B",
        channels: Sequence[int] | None = None,
        depth: int | None = None,
        strides: Sequence[Stride] = (2,) * LEVELS,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"STUNet has the sizes {', '.join(SIZES)}; found `size` {size!r}.")
        channels, depth = channels or SIZES[size][0], depth or SIZES[size][1]
        if len(channels) != LEVELS + 1:
            raise ValueError(f"STUNet has {LEVELS + 1} stages, each with its `channels`; found {list(channels)}.")
        strides = [*strides, *(1,) * LEVELS][:LEVELS]
        by_axis = [(stride,) * 3 if isinstance(stride, int) else tuple(stride) for stride in strides]
        self.in_channels = in_channels
        self.divisors = tuple(prod(edges) for edges in zip(*by_axis, strict=True))
        widths = (in_channels, *channels)
        self.down = nn.ModuleList(
            _stage(below, width, stride, depth)
            for (below, width), stride in zip(pairwise(widths), [(1, 1, 1), *by_axis], strict=True)
        )
        rising = list(pairwise(reversed(channels)))
        self.upsample = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=stride), nn.Conv3d(below, width, kernel_size=1))
            for (below, width), stride in zip(rising, reversed(by_axis), strict=True)
        )
        self.up = nn.ModuleList(_stage(2 * width, width, 1, depth) for _, width in rising)
        headed = channels[: len(HEAD_WEIGHTS) if deep_supervision else 1]
        self.heads = nn.ModuleList(nn.Conv3d(width, out_channels, kernel_size=1) for width in headed)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor | SupervisedOutput:
        """Segment a batch of images (B x in_channels x H x W x D)."""
        check_image(image, type(self).__name__, self.in_channels, self.divisors)
        check_cells(image, type(self).__name__, self.divisors)
        skips = [image]
        for stage in self.down:
            skips.append(stage(skips[-1]))
        features: Tensor = skips.pop()
        decoded: list[Tensor] = []
        for upsample, stage in zip(self.upsample, self.up, strict=True):
            features = stage(torch.cat([upsample(features), skips.pop()], dim=1))
            decoded.insert(0, features)
        if not self.training or len(self.heads) == 1:
            return cast(Tensor, self.heads[0](features))
        logits, *further = (head(features) for head, features in zip(self.heads, decoded, strict=False))
        return SupervisedOutput(logits, tuple(further), HEAD_WEIGHTS)


def _stage(in_channels: int, channels: int, stride: Stride, depth: int) -> nn.Sequential:
    first = ResidualBlock(in_channels, channels, stride, projected=True)
    return nn.Sequential(first, *(ResidualBlock(channels, channels, projected=False) for _ in range(depth - 1)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
