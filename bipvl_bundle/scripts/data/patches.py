"""Random crop of training patches."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import ClassesToIndicesd
from torch import Tensor

__all__ = ["ClassIndicesd"]


class ClassIndicesd(ClassesToIndicesd):
    """Transform like MONAI's `ClassesToIndicesd` that lists the background too for overlapping regions.

    A label map of one channel has the background among its classes. Of N region channels, MONAI takes each for a class:
    no patch would show what lies far from all regions, and a case without any region would have no centre. Here the
    voxels outside every region come first, as class 0, so that the `ratios` of a crop have N + 1 entries.

    The result is the same in every epoch. `CacheDataset` keeps it with the case, and `RandCropByLabelClassesd` with
    `indices_key` then searches no label.

    Shapes: label 1 x H x W x D, whole numbers, or N x H x W x D of zeros and ones; a single channel is a region
    if `num_classes` is 1. Arguments and result are those of `ClassesToIndicesd`.

    Deviations: the paper samples "by labelled regions" and leaves open how often each.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        labels = {key: data[key] for key in self.key_iterator(dict(data))}
        shown = {key: self._with_background(label) for key, label in labels.items()}
        return {**super().__call__({**data, **shown}), **labels}

    def _with_background(self, label: Tensor) -> Tensor:
        if len(label) == 1 and self.converter.num_classes != 1:
            return label
        regions = label.as_subclass(torch.Tensor) != 0
        return torch.cat([~regions.any(dim=0, keepdim=True), regions])
