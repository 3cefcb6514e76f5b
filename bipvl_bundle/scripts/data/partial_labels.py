"""Transform that numbers the labels of one data set among the classes of several."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapLabelValue, MapTransform

from scripts.words.checks import normalised

__all__ = ["LABELLED", "LabelsAmongd"]

LABELLED = "labelled"
"""Key of a case under which a mask says which classes its labels show."""


class LabelsAmongd(MapTransform):
    """Transform that numbers the labels of one data set among the classes of several, and marks which they show.

    Under the key ``labelled`` the case gets a mask of N booleans. Training asks for any of the N classes, and reads the
    labels of those that are marked: where another stands, this data set may have background.

    Shapes: label 1 x H x W x D, values 0 to n, or n x H x W x D, binary; it becomes 1 x H x W x D, 0 to N, or
    N x H x W x D.

    Args:
        keys: the labels.
        classes: the n classes of the data set, in the order of its labels.
        among: the N classes.
        labelled: those of the n that the labels show wherever they stand; None: all. Labels of the others are dropped.
        softmax: whether classes exclude each other, so that a label map numbers them.

    Raises:
        ValueError: a class is none of those that it is to be among; none is labelled.
    """

    def __init__(
        self,
        keys: KeysCollection,
        classes: Sequence[str],
        among: Sequence[str],
        labelled: Sequence[str] | None = None,
        *,
        softmax: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        shown = [normalised(name) for name in (classes if labelled is None else labelled)]
        own, all_classes = [[normalised(name) for name in names] for names in (classes, among)]
        for name in (*shown, *own):
            if name not in own or name not in all_classes:
                raise ValueError(f"'{name}' is none of the classes {', '.join(classes if name not in own else among)}.")
        if not shown:
            raise ValueError(
                f"`labels` names none of the classes {', '.join(classes)}; name one at least, or leave it."
            )
        self.places = [all_classes.index(name) if name in shown else None for name in own]
        self.mask = torch.tensor([name in shown for name in all_classes])
        self.softmax = softmax
        numbers = [0, *(0 if place is None else place + 1 for place in self.places)]
        self.renumber = MapLabelValue(list(range(len(numbers))), numbers, dtype=None)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = self.renumber(case[key]) if self.softmax else self._spread(case[key])
        case[LABELLED] = self.mask.numpy()
        return case

    def _spread(self, label: torch.Tensor) -> torch.Tensor:
        """Put the regions of a data set (n x H x W x D) in their places (N x H x W x D)."""
        spread = label.new_zeros((len(self.mask), *label.shape[1:]))
        for region, place in zip(label, self.places, strict=True):
            if place is not None:
                spread[place] = region
        return MetaTensor(spread, meta=label.meta) if isinstance(label, MetaTensor) else spread
