"""nnFormer: window attention between convolutions, with skip attention in the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from monai.networks.blocks import MLPBlock
from monai.networks.layers import DropPath
from monai.networks.nets.swin_unetr import SwinTransformerBlock, compute_mask, get_window_size
from torch import Tensor, nn

from scripts.networks.baselines.skip_attention import SkipWindowAttention
from scripts.networks.image_checks import check_image
from scripts.networks.outputs import SupervisedOutput

HEAD_WEIGHTS = (4 / 7, 2 / 7, 1 / 7)
STAGES = 4


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of features, B x C x H x W x D."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class SkipAttentionBlock(nn.Module):
    """Block in which upsampled features ask the encoder's: skip attention, then an MLP, each with a residual.

    With u the upsampled features and s the skip: x = u + s; x + A(q = LN(u), kv = LN(s)), one norm for both; then
    x + MLP(LN x). Shapes: u and s B x H x W x D x C, and the result.

    Args:
        channels: C.
        num_heads: of the attention.
        window: its three edges; windows are not shifted.
        drop_path: rate of stochastic depth.
    """

    def __init__(self, channels: int, num_heads: int, window: Sequence[int], drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = SkipWindowAttention(channels, num_heads, window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLPBlock(channels, 4 * channels, dropout_mode="swin")
        self.drop_path = DropPath(drop_path)

    def forward(self, upsampled: Tensor, skip: Tensor) -> Tensor:
        attended = self.attention(self.norm1(upsampled), self.norm1(skip))
        features = upsampled + skip + self.drop_path(attended)
        return features + self.drop_path(self.mlp(self.norm2(features)))


class NNFormer(nn.Module):
    """U-shaped transformer with window attention; the setting of the authors for abdominal CT by default.

    In evaluation ``forward`` returns the logits (B x C x H x W x D), in training too, unless ``deep_supervision``: then
    a ``SupervisedOutput`` with the logits of the three decoder stages. 149.3 million parameters for 1 image channel and
    16 classes, 149.9 with deep supervision.

    Where a window reaches the smallest edge of its stage at ``roi_size``, it becomes that edge, and is not shifted. An
    image of another size is cut into the same windows, filled up with zeros where it has to be.

    The patch is (4, 4, 2): the authors' volumes have the slices on the first axis, images in RAS orientation on the
    last.

    Of the published code:
        - The relative position index is wrong: its stride along the first axis is 3w - 1 in place of (2w - 1)^2, so
          that different offsets share a bias (of window 4, 115 of 343 rows are read). MONAI's is used, which is right.
        - It asserts the size of the crop and masks stages that shift nothing. Here masks follow the image.
        - It loads ImageNet weights from a personal folder by default. Here nothing is loaded.
        - Skip attention has no projection of the queries, as published.

    Args:
        in_channels: of the image.
        out_channels: C.
        roi_size: the three edges of a patch, which decide the windows.
        channels: of the first stage, doubled at each of the next three.
        num_heads: of the four stages.
        decoder_heads: of the decoder at the resolutions of the first three stages; those of the encoder if None.
        windows: edges of the cubes of the four stages.
        patch_size: of the embedding and the heads; each edge 2 or 4.
        drop_path: the highest rate of stochastic depth.
        deep_supervision: whether three heads are trained.

    Raises:
        ValueError: a patch edge other than 2 or 4; a ``roi_size``, or in ``forward`` an image, that cannot be divided;
            an image that is smaller than a window somewhere.

    Source:
        Zhou et al., "nnFormer: Volumetric Medical Image Segmentation via a 3D Transformer" (2023).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        roi_size: Sequence[int],
        *,
        channels: int = 192,
        num_heads: Sequence[int] = (6, 12, 24, 48),
        decoder_heads: Sequence[int] | None = None,
        windows: Sequence[int] = (4, 4, 8, 4),
        patch_size: Sequence[int] = (4, 4, 2),
        drop_path: float = 0.2,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if not set(patch_size) <= {2, 4} or len(patch_size) != 3:
            raise ValueError(f"NNFormer embeds patches whose three edges are 2 or 4; found {list(patch_size)}.")
        self.in_channels = in_channels
        self.divisors = tuple(edge * 2 ** (STAGES - 1) for edge in patch_size)
        check_image(torch.empty(1, in_channels, *roi_size, device="meta"), "NNFormer", in_channels, self.divisors)
        widths = [channels * 2**n for n in range(STAGES)]
        edges = [[edge // (patch * 2**n) for edge, patch in zip(roi_size, patch_size, strict=True)] for n in range(4)]
        self.windows = [min(window, *stage) for window, stage in zip(windows, edges, strict=True)]
        shifts = [0 if window >= min(stage) else window // 2 for window, stage in zip(windows, edges, strict=True)]
        settings = list(zip(widths, num_heads, self.windows, shifts, strict=True))
        self.embedding = _embedding(in_channels, channels, patch_size)
        rates = _rates(drop_path, 2 * STAGES)
        self.encoder = nn.ModuleList(
            nn.ModuleList([_block(*setting, 0, rates.pop(0)), _block(*setting, 1, rates.pop(0))])
            for setting in settings
        )
        self.down = nn.ModuleList(
            nn.Sequential(nn.GELU(), ChannelNorm(width), nn.Conv3d(width, 2 * width, 3, stride=2, padding=1))
            for width in widths[:-1]
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        rates = _rates(drop_path, 2 * (STAGES - 1))
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for n in reversed(range(STAGES - 1)):  # the highest rates belong to the highest resolution
            width, heads, window = widths[n], (decoder_heads or num_heads)[n], self.windows[n]
            self.up.append(nn.Sequential(ChannelNorm(2 * width), nn.ConvTranspose3d(2 * width, width, 2, stride=2)))
            skip = SkipAttentionBlock(width, heads, (window,) * 3, rates.pop(0))
            self.decoder.append(nn.ModuleList([skip, _block(width, heads, window, shifts[n], 1, rates.pop(0))]))
        patch = cast("tuple[int, int, int]", tuple(patch_size))
        headed = widths[: STAGES - 1 if deep_supervision else 1]
        self.heads = nn.ModuleList(nn.ConvTranspose3d(width, out_channels, patch, stride=patch) for width in headed)

    def forward(self, image: Tensor) -> Tensor | SupervisedOutput:
        """Segment a batch of images (B x in_channels x H x W x D)."""
        check_image(image, type(self).__name__, self.in_channels, self.divisors)
        self._check_windows(image)
        features, skips = self.embedding(image), []
        for n, (blocks, norm) in enumerate(zip(self.encoder, self.norms, strict=True)):
            features = rearrange(features, "b c h w d -> b h w d c")
            for block in cast(nn.ModuleList, blocks):
                features = _run(cast(SwinTransformerBlock, block), features)
            skips.append(norm(features))
            features = rearrange(features, "b h w d c -> b c h w d")
            features = self.down[n](features) if n < len(self.down) else features
        decoded: list[Tensor] = []
        features = skips.pop()
        for up, blocks in zip(self.up, self.decoder, strict=True):
            ask, block = cast(nn.ModuleList, blocks)
            upsampled = up(rearrange(features, "b h w d c -> b c h w d"))
            features = ask(rearrange(upsampled, "b c h w d -> b h w d c"), skips.pop())
            features = _run(cast(SwinTransformerBlock, block), features)
            decoded.insert(0, rearrange(features, "b h w d c -> b c h w d"))
        if not self.training or len(self.heads) == 1:
            return cast(Tensor, self.heads[0](decoded[0]))
        logits, *further = (head(features) for head, features in zip(self.heads, decoded, strict=True))
        return SupervisedOutput(logits, tuple(further), HEAD_WEIGHTS)

    def _check_windows(self, image: Tensor) -> None:
        for n, window in enumerate(self.windows):
            strides = [divisor // 2 ** (STAGES - 1 - n) for divisor in self.divisors]
            if any(edge // stride < window for edge, stride in zip(image.shape[2:], strides, strict=True)):
                raise ValueError(
                    f"An image of {tuple(image.shape[2:])} is smaller at stage {n + 1} than the windows of {window}^3 "
                    "that NNFormer was built with. Segment patches of the `roi_size` that it was trained on."
                )


def _rates(highest: float, count: int) -> list[float]:
    return [highest * n / (count - 1) for n in range(count)]


def _block(channels: int, heads: int, window: int, shift: int, number: int, rate: float) -> SwinTransformerBlock:
    shifts = (shift if number else 0,) * 3
    return SwinTransformerBlock(channels, heads, (window,) * 3, shifts, drop_path=rate)


def _run(block: SwinTransformerBlock, features: Tensor) -> Tensor:
    """Run a Swin block with the mask that its shift needs on B x H x W x D x C."""
    edges = features.shape[1:-1]
    window, shift = get_window_size(edges, block.window_size, block.shift_size)
    mask = None
    if any(shift):
        padded = [-(-edge // length) * length for edge, length in zip(edges, window, strict=True)]
        mask = compute_mask(padded, window, shift, features.device)
    return cast(Tensor, block(features, mask))


def _embedding(in_channels: int, channels: int, patch_size: Sequence[int]) -> nn.Sequential:
    """Two convolutions a halving, activation before norm; an axis with a patch of 2 is halved once."""
    half = channels // 2
    second = cast("tuple[int, int, int]", tuple(edge // 2 for edge in patch_size))
    return nn.Sequential(
        nn.Sequential(*_unit(in_channels, half, (2, 2, 2)), *_unit(half, half, (1, 1, 1))),
        nn.Sequential(*_unit(half, channels, second), nn.Conv3d(channels, channels, 3, padding=1)),
        ChannelNorm(channels),
    )


def _unit(in_channels: int, channels: int, stride: tuple[int, int, int]) -> list[nn.Module]:
    return [nn.Conv3d(in_channels, channels, 3, stride=stride, padding=1), nn.GELU(), ChannelNorm(channels)]
