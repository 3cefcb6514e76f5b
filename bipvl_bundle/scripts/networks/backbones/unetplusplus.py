"""UNet++ as a backbone."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets import BasicUNetPlusPlus
from torch import Tensor, nn

from scripts.networks.backbones.base import FusableBackbone, Fuse

_STAGES = (1, 2, 3, 4)


class UNetPlusPlusBackbone(FusableBackbone):
    """Adapter of MONAI's ``BasicUNetPlusPlus`` with text fused after its four downsampling layers.

    Stages 1 to 4 are the nodes x_1,0 to x_4,0 of the network's first column; every nested node reads the fused
    ones. With the default ``features`` the stages at 96^3 are 48^3 x 32, 24^3 x 64, 12^3 x 128 and 6^3 x 256.

    The logits are those of the last node, x_0,4, the only ones that the stock network returns without deep
    supervision and the last of its list with it. Its other three heads are not computed and their weights are
    frozen: nothing reads them, and a parameter without a gradient stops DistributedDataParallel.

    Args:
        network: the stock 3D network.

    Raises:
        TypeError: ``network`` is not a MONAI ``BasicUNetPlusPlus``.
        ValueError: it is not 3D; an image that is a single cell at the last stage.

    Source:
        Zhou et al., "UNet++" (2018).
    """

    def __init__(self, network: BasicUNetPlusPlus) -> None:
        super().__init__()
        self._require(network, BasicUNetPlusPlus)
        head = network.final_conv_0_4
        if not isinstance(head, nn.Conv3d):
            raise ValueError(
                f"UNetPlusPlusBackbone needs `spatial_dims` 3; the network ends in a {type(head).__name__}."
            )
        for unread in (network.final_conv_0_1, network.final_conv_0_2, network.final_conv_0_3):
            unread.requires_grad_(False)
        self.network = network
        first: Any = network.conv_0_0
        self.in_channels = first.conv_0.conv.in_channels
        self.out_channels = head.out_channels
        encoder = [getattr(network, f"conv_{stage}_0") for stage in _STAGES]
        self.stage_channels = tuple(layer.convs.conv_1.conv.out_channels for layer in encoder)
        self.stage_strides = tuple(2**stage for stage in _STAGES)
        self.divisor = 2 ** _STAGES[-1]

    def encode_decode(self, image: Tensor, fuse: Fuse) -> Tensor:
        self._require_cells(image)
        net = self.network
        rows = [[net.conv_0_0(image)]]  # rows[i][j] is node x_i,j
        for stage in _STAGES:
            rows.append([fuse(stage, getattr(net, f"conv_{stage}_0")(rows[-1][0]))])
            for j in range(1, stage + 1):
                row = rows[stage - j]
                skip = torch.cat(row, dim=1) if j > 1 else row[0]
                row.append(getattr(net, f"upcat_{stage - j}_{j}")(rows[stage - j + 1][-1], skip))
        return net.final_conv_0_4(rows[0][-1])
