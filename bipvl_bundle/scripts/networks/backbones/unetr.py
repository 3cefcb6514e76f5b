"""UNETR as a backbone."""

from __future__ import annotations

from einops import rearrange
from monai.networks.nets import UNETR
from torch import Tensor

from scripts.networks.backbones.base import FusableBackbone, Fuse

_TAPS = (4, 7, 10)  # blocks whose tokens MONAI's decoder reads, besides those of the last


class UNETRBackbone(FusableBackbone):
    """Adapter of MONAI's ``UNETR`` with text fused where its decoder taps the transformer.

    Stages 1 to 3 end with blocks 4, 7 and 10 of 12, stage 4 with the last block and the norm after it. All have
    the width and the grid of the tokens: 6^3 x 768 at 96^3. Tokens are given to ``fuse`` as features on that
    grid and go on to the next block as tokens.

    The position embeddings fix the size of the image: it is that which the network was built for, no other.
    Norms of a cross-attention that MONAI's blocks have but UNETR does not use are frozen: a parameter without a
    gradient stops DistributedDataParallel.

    Args:
        network: the stock 3D network, ``img_size`` a multiple of 16.

    Raises:
        TypeError: ``network`` is not a MONAI ``UNETR``.
        ValueError: it is not 3D or has another depth than 12; an image of another size than ``img_size``.

    Source:
        Hatamizadeh et al., "UNETR" (2022).
    """

    def __init__(self, network: UNETR) -> None:
        super().__init__()
        self._require(network, UNETR)
        blocks = network.vit.blocks
        if len(network.feat_size) != 3 or len(blocks) != 12:
            raise ValueError(
                "UNETRBackbone needs a 3D network with 12 transformer blocks, of which MONAI's decoder taps "
                f"{_TAPS} and the last; found {len(network.feat_size)}D with {len(blocks)}."
            )
        for block in blocks:
            block.norm_cross_attn.requires_grad_(False)
        patch = network.patch_size[0]
        self.network = network
        self.in_channels = network.encoder1.layer.conv1.conv.in_channels
        self.out_channels = network.out.conv.conv.out_channels
        self.image_size = tuple(cells * patch for cells in network.feat_size)
        self.stage_channels = (network.hidden_size,) * 4
        self.stage_strides = (patch,) * 4
        self.divisor = patch

    def encode_decode(self, image: Tensor, fuse: Fuse) -> Tensor:
        if tuple(image.shape[2:]) != self.image_size:
            raise ValueError(
                f"This UNETR was built for images of {self.image_size}; found {tuple(image.shape[2:])}. Let "
                "`img_size` and the patches that are cut (`roi_size`) agree."
            )
        net = self.network
        tokens = net.vit.patch_embedding(image)
        skips: list[Tensor] = []
        for depth, block in enumerate(net.vit.blocks, start=1):
            tokens = block(tokens)
            if depth in _TAPS:
                skips.append(fuse(len(skips) + 1, net.proj_feat(tokens)))
                tokens = rearrange(skips[-1], "b c h w d -> b (h w d) c").contiguous()
        last = fuse(4, net.proj_feat(net.vit.norm(tokens)))
        decoded = net.decoder5(last, net.encoder4(skips[2]))
        decoded = net.decoder4(decoded, net.encoder3(skips[1]))
        decoded = net.decoder3(decoded, net.encoder2(skips[0]))
        return net.out(net.decoder2(decoded, net.encoder1(image)))
