"""MedFormer: a convolution-transformer U-Net whose voxels attend to small semantic maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from monai.networks.blocks import TransformerBlock
from torch import Tensor, nn

from scripts.networks.baselines.bidirectional_attention import (
    BidirectionalAttention,
    Kernel,
    SemanticMap,
    convolution,
    separable,
    unit,
)
from scripts.networks.image_checks import check_cells, check_image
from scripts.networks.outputs import SupervisedOutput

LEVELS = 4
MAPPED = 3  # the lowest levels down have semantic maps; all but one of them up again


class BasicBlock(nn.Module):
    """Two pre-activated units around a shortcut, which is a unit of its own where channels change.

    Shapes: B x in_channels x H x W x D to B x channels x H x W x D.
    """

    def __init__(self, in_channels: int, channels: int, kernel: Kernel, act: str) -> None:
        super().__init__()
        self.units = nn.Sequential(unit(in_channels, channels, kernel, act), unit(channels, channels, kernel, act))
        same = in_channels == channels
        self.shortcut = nn.Identity() if same else unit(in_channels, channels, kernel, act)

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.units(features) + self.shortcut(features))


class PatchMerging(nn.Module):
    """Downsampling: the voxels of a cell become channels, which a norm and a separable convolution mix.

    Shapes: B x in_channels x H x W x D to B x channels x H/x x W/y x D/z, for the scale (x, y, z).
    """

    def __init__(self, in_channels: int, channels: int, scale: Sequence[int], kernel: Kernel) -> None:
        super().__init__()
        self.scale = dict(zip("xyz", scale, strict=True))
        wide = in_channels * math.prod(scale)
        self.mix = nn.Sequential(nn.InstanceNorm3d(wide), separable(wide, channels, kernel))

    def forward(self, features: Tensor) -> Tensor:
        cells = rearrange(features, "b c (h x) (w y) (d z) -> b (x y z c) h w d", **self.scale)
        return cast(Tensor, self.mix(cells))


class MapFusion(nn.Module):
    """A small transformer over the tokens of all maps, which need not have the same channels.

    Shapes: maps B x C_i x M, and as many results of the same shapes.

    Args:
        channels: C_i of each map.
        width: of the tokens in the transformer.
        num_heads: must divide the width.
        depth: layers.
    """

    def __init__(self, channels: Sequence[int], width: int, num_heads: int, depth: int = 2) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Conv1d(c, width, 1, bias=False) for c in channels)
        self.layers = nn.Sequential(*(TransformerBlock(width, width, num_heads) for _ in range(depth)))
        for layer in self.layers:
            layer.norm_cross_attn = nn.Identity()  # of MONAI's block, and read by no self-attention
        self.leave = nn.ModuleList(nn.Conv1d(width, c, 1, bias=False) for c in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        tokens = [enter(semantic_map) for enter, semantic_map in zip(self.enter, maps, strict=True)]
        fused = self.layers(torch.cat(tokens, dim=-1).transpose(1, 2)).transpose(1, 2)
        parts = fused.split([x.shape[-1] for x in tokens], dim=-1)
        return [leave(part) for leave, part in zip(self.leave, parts, strict=True)]


class MedFormer(nn.Module):
    """Data-scalable transformer: bidirectional attention between voxels and maps at the lower levels of a U-Net.

    In evaluation ``forward`` returns the logits (B x C x H x W x D), in training too, unless ``auxiliary_head``: then a
    ``SupervisedOutput`` with a second head above the attention, at full size, each with half of the weight. By default
    the setting of the paper's authors, 21.8 million parameters for 1 image channel and 16 classes; that of MedFormer's
    own for AMOS has 39.6.

    The default is made for thick slices: two levels neither convolve nor merge across them. The authors' first axis is
    here the last one, since images in RAS orientation have their slices there.

    Of the published code: channels of a head lie apart, which matters only to who loads its weights; the spatial shape
    of a map means nothing, so that it is a number of tokens here; some of its configurations have other depths than its
    published table.

    Args:
        in_channels: of the image.
        out_channels: C.
        stem_channels: at full resolution.
        channels: of the four levels down; up again those of the levels above and the stem.
        kernels: of the stem and the four levels, three odd edges each.
        scales: of the four mergings, three edges each.
        blocks: basic blocks of the four levels down and the four up.
        attentions: bidirectional attentions of the same, 0 where a level has no map: the first down, the last two up.
        num_heads: of the same.
        map_tokens: M.
        fusion_width: of the transformer that fuses the maps.
        fusion_heads: of it.
        act: activation, a name that MONAI knows.
        auxiliary_head: whether a second head is trained.

    Raises:
        ValueError: a list of another length than said, attention where there is no map, or no attention where there is
            one; in ``forward``, an image that cannot be divided, or that is a single cell at the last level.

    Source:
        Gao et al., "A Data-scalable Transformer for Medical Image Segmentation" (2022).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stem_channels: int = 32,
        channels: Sequence[int] = (64, 128, 256, 320),
        kernels: Sequence[Kernel] = ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        scales: Sequence[Sequence[int]] = ((2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2)),
        blocks: Sequence[int] = (2, 0, 0, 0, 0, 0, 2, 2),
        attentions: Sequence[int] = (0, 2, 2, 2, 2, 2, 0, 0),
        num_heads: Sequence[int] = (1, 4, 4, 4, 4, 4, 1, 1),
        map_tokens: int = 72,
        fusion_width: int = 256,
        fusion_heads: int = 4,
        act: str = "gelu",
        auxiliary_head: bool = False,
    ) -> None:
        super().__init__()
        _check(channels, kernels, scales, blocks, attentions, num_heads)
        self.in_channels = in_channels
        self.divisors = tuple(math.prod(edges) for edges in zip(*scales, strict=True))
        self.stem = nn.Sequential(
            convolution(in_channels, stem_channels, kernels[0]),
            BasicBlock(stem_channels, stem_channels, kernels[0], act),
        )
        levels = range(LEVELS)
        widths = [stem_channels, *channels]
        self.merge = nn.ModuleList(PatchMerging(widths[n], widths[n + 1], scales[n], kernels[n + 1]) for n in levels)
        self.down = nn.ModuleList(_basic(widths[n + 1], widths[n + 1], kernels[n + 1], act, blocks[n]) for n in levels)
        self.maps = nn.ModuleList(SemanticMap(width, map_tokens) for width in channels[1:])
        self.down_attentions = nn.ModuleList(
            _attentions(channels[n], channels[n], attentions[n], num_heads=num_heads[n], kernel=kernels[n + 1], act=act)
            for n in levels[1:]
        )
        self.fuse = MapFusion(channels[1:], fusion_width, fusion_heads)
        self.merge_maps, self.up_attentions, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for n in levels:
            low, width, kernel = widths[LEVELS - n], widths[LEVELS - n - 1], kernels[LEVELS - n - 1]
            if n < MAPPED - 1:
                self.merge_maps.append(nn.Conv1d(low + width, width, 1, bias=False))
                rest: dict[str, Any] = {"num_heads": num_heads[LEVELS + n], "kernel": kernel, "act": act}
                rest["last_map"] = n < MAPPED - 2
                self.up_attentions.append(_attentions(low + width, width, attentions[LEVELS + n], **rest))
                self.up.append(_basic(width, width, kernel, act, blocks[LEVELS + n]))
            else:
                self.up.append(_basic(low + width, width, kernel, act, blocks[LEVELS + n]))
        self.head = nn.Conv3d(stem_channels, out_channels, 1)
        self.auxiliary_head = nn.Conv3d(channels[1], out_channels, 1) if auxiliary_head else None

    def forward(self, image: Tensor) -> Tensor | SupervisedOutput:
        """Segment a batch of images (B x in_channels x H x W x D)."""
        check_image(image, type(self).__name__, self.in_channels, self.divisors)
        check_cells(image, type(self).__name__, self.divisors)
        features = self.stem(image)
        skips, maps = [features], []
        for n in range(LEVELS):
            features = self.down[n](self.merge[n](features))
            if n:
                features, semantic_map = _attend(self.down_attentions[n - 1], features, self.maps[n - 1](features))
                maps.append(semantic_map)
            skips.append(features)
        maps = self.fuse(maps)
        features, semantic_map, attended = skips.pop(), maps.pop(), features
        for n in range(LEVELS):
            skip = skips.pop()
            features = F.interpolate(features, size=skip.shape[2:], mode="trilinear", align_corners=True)
            features = torch.cat([features, skip], dim=1)
            if n < MAPPED - 1:
                semantic_map = self.merge_maps[n](torch.cat([semantic_map, maps.pop()], dim=1))
                features, semantic_map = _attend(self.up_attentions[n], features, semantic_map)
            features = self.up[n](features)
            attended = features if n == MAPPED - 2 else attended
        logits = self.head(features)
        if not self.training or self.auxiliary_head is None:
            return cast(Tensor, logits)
        lower = self.auxiliary_head(attended)
        lower = F.interpolate(lower, size=logits.shape[2:], mode="trilinear", align_corners=True)
        return SupervisedOutput(logits, (lower,), (0.5, 0.5))


def _basic(in_channels: int, channels: int, kernel: Kernel, act: str, count: int) -> nn.Sequential:
    return nn.Sequential(*(BasicBlock(channels if n else in_channels, channels, kernel, act) for n in range(count)))


def _attentions(
    in_channels: int, channels: int, count: int, *, num_heads: int, kernel: Kernel, act: str, last_map: bool = True
) -> nn.ModuleList:
    """Some attentions of a level; with ``last_map`` false, the last of them leaves the map that nothing reads."""
    return nn.ModuleList(
        BidirectionalAttention(
            channels if n else in_channels,
            channels,
            channels,
            num_heads=num_heads,
            kernel=kernel,
            act=act,
            returns_map=last_map or n < count - 1,
        )
        for n in range(count)
    )


def _attend(attentions: nn.Module, features: Tensor, semantic_map: Tensor) -> tuple[Tensor, Tensor]:
    for attention in cast(nn.ModuleList, attentions):
        features, semantic_map = attention(features, semantic_map)
    return features, semantic_map


def _check(
    channels: Sequence[int],
    kernels: Sequence[Kernel],
    scales: Sequence[Sequence[int]],
    blocks: Sequence[int],
    attentions: Sequence[int],
    num_heads: Sequence[int],
) -> None:
    lists = {"channels": channels, "kernels": kernels, "scales": scales}
    lists |= {"blocks": blocks, "attentions": attentions, "num_heads": num_heads}
    lengths = {"channels": LEVELS, "kernels": LEVELS + 1, "scales": LEVELS}
    for name, values in lists.items():
        expected = lengths.get(name, 2 * LEVELS)
        if len(values) != expected:
            raise ValueError(f"MedFormer needs {expected} values as `{name}`; found {[*values]}.")
    mapped = [0, 1, 1, 1, 1, 1, 0, 0]
    if [min(count, 1) for count in attentions] != mapped or not all(blocks[LEVELS + MAPPED - 1 :]):
        raise ValueError(
            "MedFormer has attention at the three lower levels down and the first two up, and basic blocks at the last "
            f"two up; found `attentions` {[*attentions]} and `blocks` {[*blocks]}."
        )
