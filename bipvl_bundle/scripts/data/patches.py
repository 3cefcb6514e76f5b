"""Random crop of training patches."""

from __future__ import annotations

from typing import Any

import torch
from monai.transforms import RandCropByLabelClassesd

__all__ = ["RandCropByClassesd"]


class RandCropByClassesd(RandCropByLabelClassesd):
    """Transform like MONAI's `RandCropByLabelClassesd` that includes the background for overlapping regions.

    A label map of one channel has the background among its classes. Of N channels, one a region, MONAI would take
    each for a class: no patch would show what lies far from all of them, and a case without any would have no
    centre at all. Here the voxels outside every region come first, as class 0, so that `ratios` counts N + 1 too.

    Shapes: label 1 x H x W x D, whole numbers, or N x H x W x D of zeros and ones; a single channel is a region
    where `num_classes` is 1. Arguments and result are those of `RandCropByLabelClassesd`.

    Deviations: the paper samples "by labelled regions"; how often each is left open.
    """

    def randomize(self, label: torch.Tensor, indices: Any = None, image: torch.Tensor | None = None) -> None:
        if indices is None and (len(label) > 1 or self.cropper.num_classes == 1):
            regions = label.as_subclass(torch.Tensor) != 0
            label = torch.cat([~regions.any(dim=0, keepdim=True), regions])
        super().randomize(label, indices, image)
