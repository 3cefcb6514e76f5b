"""Random crop of training patches."""

from __future__ import annotations

from typing import Any

import torch
from monai.transforms import RandCropByLabelClassesd

__all__ = ["RandCropByClassesd"]


class RandCropByClassesd(RandCropByLabelClassesd):
    """Transform like MONAI's `RandCropByLabelClassesd` that includes the background for overlapping regions.

    A label map of one channel has the background among its classes. Of N region channels, MONAI takes each for a class:
    no patch would show what lies far from all regions, and a case without any region would have no centre. Here the
    voxels outside every region come first, as class 0, so that `ratios` has N + 1 entries.

    Shapes: label 1 x H x W x D, whole numbers, or N x H x W x D of zeros and ones; a single channel is a region
    if `num_classes` is 1. Arguments and result are those of `RandCropByLabelClassesd`.

    Deviations: the paper samples "by labelled regions" and leaves open how often each.
    """

    def randomize(self, label: torch.Tensor, indices: Any = None, image: torch.Tensor | None = None) -> None:
        if indices is None and (len(label) > 1 or self.cropper.num_classes == 1):
            regions = label.as_subclass(torch.Tensor) != 0
            label = torch.cat([~regions.any(dim=0, keepdim=True), regions])
        super().randomize(label, indices, image)
