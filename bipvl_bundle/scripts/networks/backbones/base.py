"""Contract of the backbones: an encoder-decoder whose four encoder stages can be fused with text."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from scripts.networks.image_checks import check_cells, check_image

Fuse = Callable[[int, Tensor], Tensor]
"""``fuse(stage, features) -> features``: called with stage 1 to 4 and the features V_n of that stage
(B x C_n x h x w x d); what it returns replaces them in the next stage, the skips and the bottleneck."""


def identity_fuse(stage: int, features: Tensor) -> Tensor:
    """Return the features unchanged; the adapter then equals its stock network bit for bit."""
    return features


class FusableBackbone(nn.Module):
    """Base class of the backbones: an encoder-decoder that can be fused with text after each encoder stage.

    A subclass holds the stock MONAI network, unchanged, and calls that network's own modules in
    ``encode_decode``. Stage n is the n-th encoder stage including its downsampling.

    Attributes:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        stage_channels: C_1 to C_4.
        stage_strides: how much smaller than the image the features of stages 1 to 4 are.
        divisor: every edge of the image must be a multiple of it.
    """

    in_channels: int
    out_channels: int
    stage_channels: tuple[int, ...]
    stage_strides: tuple[int, ...]
    divisor: int

    def encode_decode(self, image: Tensor, fuse: Fuse) -> Tensor:
        """Run the stock network, passing the features of each stage through ``fuse``."""
        raise NotImplementedError

    def forward(self, image: Tensor, fuse: Fuse = identity_fuse) -> Tensor:
        """Segment an image.

        Args:
            image: B x in_channels x H x W x D
            fuse: see ``Fuse``; by default the backbone alone.

        Returns:
            logits, B x out_channels x H x W x D

        Raises:
            ValueError: the image has another number of dimensions or channels, or an edge that the
                backbone cannot divide.
        """
        check_image(image, type(self).__name__, self.in_channels, (self.divisor,) * 3)
        return self.encode_decode(image, fuse)

    def _require(self, network: nn.Module, kind: type[nn.Module]) -> None:
        """Raise a TypeError if the network is not of the class that the adapter is for."""
        if not isinstance(network, kind):
            raise TypeError(
                f"{type(self).__name__} adapts monai.networks.nets.{kind.__name__}; found "
                f"{type(network).__module__}.{type(network).__qualname__}. Use the adapter of that network."
            )

    def _require_cells(self, image: Tensor) -> None:
        """Raise a ValueError if a norm of the last stage would take its statistics over a single cell.

        Instance norm always does, batch norm in training.
        """
        if self.training or any(isinstance(module, nn.InstanceNorm3d) for module in self.modules()):
            check_cells(image, type(self).__name__, (self.divisor,) * 3)
