"""Contract of the backbones: an encoder-decoder whose four encoder stages can be fused with text."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

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
        self._check_image(image)
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
        if max(image.shape[2:]) > self.divisor:
            return
        if self.training or any(isinstance(module, nn.InstanceNorm3d) for module in self.modules()):
            raise ValueError(
                f"An ROI of {tuple(image.shape[2:])} leaves {type(self).__name__} a single cell at its last stage, "
                f"over which its norm has no statistics. Set at least one edge of `roi_size` to {2 * self.divisor}."
            )

    def _check_image(self, image: Tensor) -> None:
        name = type(self).__name__
        if image.ndim != 5:
            raise ValueError(
                f"{name} expects a batch of 3D images, B x C x H x W x D; found shape {tuple(image.shape)}. "
                "2D slices and 4D series must be split into volumes with a channel axis first."
            )
        if image.shape[1] != self.in_channels:
            raise ValueError(
                f"{name} was built for {self.in_channels} image channel(s); the image has {image.shape[1]} "
                f"(shape {tuple(image.shape)}). Set `in_channels` to the number of channels of the data set."
            )
        if any(edge % self.divisor for edge in image.shape[2:]):
            below = [max(edge // self.divisor, 1) * self.divisor for edge in image.shape[2:]]
            above = [-(-edge // self.divisor) * self.divisor for edge in image.shape[2:]]
            raise ValueError(
                f"{name} can only divide volumes whose edges are multiples of {self.divisor}; found "
                f"{tuple(image.shape[2:])}. Set `roi_size` to {below} or {above}."
            )
