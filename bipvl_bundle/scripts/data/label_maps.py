"""Transforms from label values to class numbers or to overlapping regions.

For `label_transforms`, with `keys: [label, reference]` and `allow_missing_keys: true`: one list then serves
training (label), evaluation (reference) and inference (neither).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapLabelValued, MapTransform
from monai.utils import convert_to_dst_type

from scripts.data.cases import loaded_from

__all__ = ["LabelsToRegionsd", "MapKnownLabelsd"]

BACKGROUND = 0


class MapKnownLabelsd(MapLabelValued):
    """Transform like MONAI's `MapLabelValued` that raises an error at a value without a class number.

    A file whose values are class numbers already, in an order of its own, would go through MONAI's and be
    trained on under the wrong names.

    Args:
        keys: label maps of one channel.
        orig_labels: the values in the files; 0, the background, need not be listed.
        target_labels: the number of the class for each of them; several values may share one.
        allow_missing_keys: whether a case may lack a key.

    Raises:
        ValueError: at construction, a value is listed twice; at a call, a label map holds another value.
    """

    def __init__(
        self,
        keys: KeysCollection,
        orig_labels: Sequence[int],
        target_labels: Sequence[int],
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, orig_labels, target_labels, allow_missing_keys=allow_missing_keys)
        _require_distinct(orig_labels, "MapKnownLabelsd: orig_labels")
        self.known = sorted({BACKGROUND, *orig_labels})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(dict(data)):
            _require_known(data[key], key, self.known)
        return super().__call__(data)


class LabelsToRegionsd(MapTransform):
    """Transform from one label map to one binary channel per region; regions may overlap.

    Channel r is 1 where the label is one of `regions[r]`. Type and metadata (affine, file name) are kept.

    Shapes: 1 x H x W x D to R x H x W x D.

    Args:
        keys: label maps of one channel.
        regions: the labels of each of the R regions, in the order of the class names.
        outside: labels that belong to no region; 0, the background, need not be listed.
        allow_missing_keys: whether a case may lack a key.

    Raises:
        ValueError: at construction, there is no region, or one without labels, with the background or with a
            label twice; at a call, a label map has another number of channels or another value.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Sequence[Sequence[int]],
        *,
        outside: Sequence[int] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not regions or not all(regions):
            raise ValueError(f"LabelsToRegionsd: expected regions of one label or more, found {regions!r}")
        for labels in regions:
            _require_distinct(labels, "LabelsToRegionsd: a region")
            if BACKGROUND in labels:
                raise ValueError(f"LabelsToRegionsd: expected no background in a region, found {list(labels)}")
        self.regions = [list(labels) for labels in regions]
        self.known = sorted({BACKGROUND, *outside}.union(*regions))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.key_iterator(case):
            label = torch.as_tensor(case[key])
            if len(label) != 1:
                raise ValueError(
                    f"label {loaded_from(case[key], key)}: expected one channel of labels to make regions of, found "
                    f"{len(label)} (shape {tuple(label.shape)}); leave label_transforms empty for labels that are "
                    "regions already"
                )
            _require_known(label, key, self.known)
            masks = torch.cat([torch.isin(_plain(label), torch.tensor(labels)) for labels in self.regions])
            case[key] = convert_to_dst_type(masks, case[key])[0]
        return case


def _require_distinct(labels: Sequence[int], what: str) -> None:
    twice = sorted({label for label in labels if list(labels).count(label) > 1})
    if twice:
        raise ValueError(f"{what}: expected every label once, found {twice} more than once in {list(labels)}")


def _require_known(label: Any, key: Hashable, known: Sequence[int]) -> None:
    values = _plain(torch.as_tensor(label))
    unknown = values[~torch.isin(values, torch.tensor(known))]
    if len(unknown):
        found = ", ".join(f"{value:g}" for value in unknown.unique().tolist()[:8])
        raise ValueError(
            f"label {loaded_from(label, key)}: expected only the values {', '.join(map(str, known))}, found also "
            f"{found}; correct the label, or say in label_transforms which class or region the value belongs to"
        )


def _plain(label: torch.Tensor) -> torch.Tensor:
    return label.as_subclass(torch.Tensor)
