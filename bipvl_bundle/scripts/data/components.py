"""Removal of small and stray pieces from label maps."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from scripts.geometry.grid import voxel_ml
from scripts.words.checks import find_name

__all__ = ["CleanComponentsd", "kept_components", "volume_of_voxel"]

TOUCHING = ndimage.generate_binary_structure(3, 3)  # by a face, an edge or a corner


class CleanComponentsd(MapTransform):
    """Transform that leaves of a class its largest component, or those of some volume; the rest becomes background.

    A component's voxels touch by a face, an edge or a corner. A class is looked at in the box around it, so that memory
    does not grow with the number of classes.

    Deviations: MONAI's `KeepLargestConnectedComponent` and `RemoveSmallObjects` do the same with scikit-image, which
    is no dependency here, on the whole grid for each class.

    Shapes: 1 x H x W x D of class numbers where `softmax`; else C x H x W x D of zeros and ones.

    Args:
        keys: label maps with an affine.
        class_names: the classes, labels 1, 2, ... or channels.
        keep_largest: classes of which one component stays.
        remove_smaller: by class, the volume in mL below which a component goes.
        softmax: whether classes exclude each other.

    Raises:
        ValueError: at construction, a class that is none of them, or a volume below 0.
    """

    def __init__(
        self,
        keys: KeysCollection,
        class_names: Sequence[str],
        *,
        keep_largest: Sequence[str] = (),
        remove_smaller: Mapping[str, float] | None = None,
        softmax: bool = True,
    ) -> None:
        super().__init__(keys)
        names, volumes = list(class_names), dict(remove_smaller or {})
        bad = {name: volume for name, volume in volumes.items() if not float(volume) >= 0}
        if bad or isinstance(keep_largest, str):
            raise ValueError(
                "`keep_largest` lists classes and `remove_smaller` has a volume in mL for each of its classes, from 0 "
                f"on; found {bad or keep_largest!r}."
            )
        self.largest = {names.index(find_name(name, names, "class", "`keep_largest`")) for name in keep_largest}
        self.smallest = {
            names.index(find_name(name, names, "class", "`remove_smaller`")): float(ml) for name, ml in volumes.items()
        }
        self.softmax = softmax
        self.class_names = names

    def for_classes(self, class_names: Sequence[str]) -> CleanComponentsd:
        """Return the transform for label maps of other classes; rules of classes that are not among them are left out.

        Args:
            class_names: in the order of their labels or channels.
        """
        names, other = list(class_names), copy.copy(self)
        places = {old: names.index(name) for old, name in enumerate(self.class_names) if name in names}
        other.class_names = names
        other.largest = {places[number] for number in self.largest if number in places}
        other.smallest = {places[number]: ml for number, ml in self.smallest.items() if number in places}
        return other

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.keys:
            for number in sorted(self.largest | set(self.smallest)):
                self._clean(case[key], number)
        return case

    def _clean(self, labels: Tensor, number: int) -> None:
        channel = (labels[0] if self.softmax else labels[number]).as_subclass(Tensor)
        mask = (channel == number + 1 if self.softmax else channel != 0).cpu().numpy()
        boxes = ndimage.find_objects(mask.astype(np.uint8))
        if not boxes:
            return
        part = mask[boxes[0]]
        smallest = self.smallest.get(number, 0.0) / volume_of_voxel(labels)
        stray = part & ~kept_components(part, largest=number in self.largest, smallest=smallest)
        channel[boxes[0]][torch.from_numpy(stray).to(channel.device)] = 0


def kept_components(mask: NDArray[np.bool_], *, largest: bool, smallest: float = 0.0) -> NDArray[np.bool_]:
    """Return the mask without components of fewer voxels than `smallest`, and, if `largest`, with one at most."""
    components, count = ndimage.label(mask, TOUCHING)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    stay = sizes >= smallest
    stay[0] = False
    if largest and count:
        stay &= np.arange(count + 1) == 1 + sizes[1:].argmax()
    return np.asarray(stay[components], dtype=np.bool_)


def volume_of_voxel(labels: Tensor) -> float:
    """Return the volume of a voxel in mL, by the affine; of 1 mm where there is none."""
    return voxel_ml(labels.affine.cpu() if isinstance(labels, MetaTensor) else np.eye(4))
