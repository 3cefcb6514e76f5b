"""Transforms that MONAI lacks: a `Spacingd` that tolerates and foresees, and the check of a loaded case."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Spacingd

from scripts.data.cases import loaded_from
from scripts.data.intensities import LEVELS, levels_of
from scripts.data.memory import require_memory
from scripts.geometry.grid import corner_distance
from scripts.messages.phrases import by, some

__all__ = ["CheckCased", "SafeSpacingd"]

SPATIAL_DIMS = 3
BYTES_A_VOXEL = 32
"""Of a resampling by MONAI: four coordinates in double precision."""
BYTES_A_CHANNEL = 12
"""Besides, the result in double and in single precision."""


class SafeSpacingd(Spacingd):
    """Transform like MONAI's `Spacingd` that tolerates entries such as `image_path` or `label_text`.

    Since monai 1.6.0 `Spacingd` takes every entry named ``<key>_*`` for a dictionary of metadata and updates
    it; an entry of another type stops it. Such entries are kept out of its sight and put back. Arguments,
    result and inverse are those of `Spacingd`.

    Raises:
        ValueError: memory cannot hold the resampled volume; it is not begun.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        hidden = {name: entry for name, entry in data.items() if self._is_foreign(name, entry)}
        own = {name: entry for name, entry in data.items() if name not in hidden}
        for key, pixdim in self.key_iterator(own, self.pixdims):
            _require_room(own[key], key, pixdim)
        return {**super().__call__(own, lazy=lazy), **hidden}

    @property
    def pixdims(self) -> list[Any]:
        return [self.spacing_transform.pixdim] * len(self.keys)

    def _is_foreign(self, name: Hashable, entry: Any) -> bool:
        if name in self.keys or isinstance(entry, dict):
            return False
        return not isinstance(name, str) or name.startswith(tuple(f"{key}_" for key in self.keys))


class CheckCased(MapTransform):
    """Transform that raises an error at a case the pipeline would misread, with its file and the remedy.

    Place it right after loading, channel first, before anything resamples, crops or scales: it looks at the
    file's own content. Where a case has no label (inference) only its images are checked. The levels of an image's
    values go into its metadata (`LEVELS`).

    Args:
        keys: the images, each C x H x W x D, and the label, which is compared with the first image.
        label_key: which entry is the label map, 1 x H x W x D, or for overlapping regions also one channel of
            zeros and ones for each region. It is checked where a case has it.
        num_channels: channels that each image must have.
        class_names: names of the foreground classes in label order.
        softmax: whether labels are the numbers of the classes, 0 being the background. If not,
            `class_names` are the regions, and tell nothing of a label map of one channel.
        num_classes: the labels of one channel are the integers from 0 to `num_classes` - 1. None: counted
            from `class_names` where `softmax`, else not checked.
        affine_tolerance: in millimetres, how far a corner of the volume may move between the image's affine
            and the label's.
        allow_missing_keys: whether a case may lack an image.

    Raises:
        ValueError: at construction, `num_classes` and exclusive `class_names` disagree; at a call, the case
            has another number of spatial dimensions or channels, no voxels, a single slice or one value
            throughout, NaN or infinite voxels, a label of another shape or affine, or label values that are
            no integers or outside the table.
        KeyError: a case lacks an image.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str = "label",
        *,
        num_channels: int = 1,
        class_names: Sequence[str] = (),
        softmax: bool = True,
        num_classes: int | None = None,
        affine_tolerance: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        counted = len(class_names) + 1 if class_names and softmax else None
        if counted is not None and num_classes not in (None, counted):
            raise ValueError(
                f"CheckCased: expected num_classes to count the background and the {len(class_names)} "
                f"class_names, which makes {counted}, found {num_classes}; correct one of the two"
            )
        self.label_key = label_key
        self.num_channels = num_channels
        self.class_names = tuple(class_names)
        self.softmax = softmax
        self.num_classes = counted if num_classes is None else num_classes
        self.affine_tolerance = affine_tolerance

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for checks in self._checks(case):
            for check in checks:
                check()
        for image in self._images(case).values():
            if isinstance(image, MetaTensor):  # scaled values do not tell any more
                image.meta[LEVELS] = json.dumps([levels_of(channel) for channel in image.cpu().numpy()])
        return case

    def problems(self, data: Mapping[Hashable, Any]) -> list[str]:
        """Return the first problem of each volume of a case.

        Raises:
            KeyError: a case lacks an image.
        """
        found = []
        for checks in self._checks(data):
            try:
                for check in checks:
                    check()
            except ValueError as error:
                found.append(str(error))
        return found

    def _checks(self, case: Mapping[Hashable, Any]) -> list[list[Callable[[], None]]]:
        """Return one list of checks per volume; each relies on those before it."""
        images = self._images(case)
        lists: list[list[Callable[[], None]]] = []
        for key, image in images.items():
            name = f"image {loaded_from(image, key)}"
            grid = partial(_check_grid, image, name, (self.num_channels,), "set num_channels to match")
            lists.append([grid, partial(_check_finite, image, name), partial(_check_content, image, name)])
        if self.label_key in case:
            label = case[self.label_key]
            name = f"label {loaded_from(label, self.label_key)}"
            regions = () if self.softmax else (len(self.class_names),)
            advice = "give it one channel with the number of the class"
            lists.append([partial(_check_grid, label, name, (1, *regions), advice)])
            for key, image in list(images.items())[:1]:
                names = f"image {loaded_from(image, key)} and {name}"
                lists[-1].append(partial(self._check_alignment, image, label, names))
            lists[-1] += [partial(_check_finite, label, name), partial(self._check_values, label, name)]
        return lists

    def _images(self, case: Mapping[Hashable, Any]) -> dict[Hashable, torch.Tensor]:
        keys = [key for key in self.keys if key != self.label_key]
        missing = [key for key in keys if key not in case]
        if missing and not self.allow_missing_keys:
            raise KeyError(f"CheckCased: expected the images {keys}, found not {missing}; correct the datalist")
        return {key: case[key] for key in keys if key in case}

    def _check_alignment(self, image: torch.Tensor, label: torch.Tensor, names: str) -> None:
        shapes = image.shape[1:], label.shape[1:]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{names}: expected one shape, found {by(shapes[0])} and {by(shapes[1])}; check that they "
                "belong together, or resample the label to the image's grid"
            )
        if not isinstance(image, MetaTensor) or not isinstance(label, MetaTensor):
            return
        distance = corner_distance(image.affine, label.affine, shapes[0])
        if not distance <= self.affine_tolerance:  # so that NaN is caught too
            raise ValueError(
                f"{names}: expected one affine, found {_rows(image.affine)} and {_rows(label.affine)}, which "
                f"put a corner {distance:.3g} mm apart (affine_tolerance {self.affine_tolerance:g} mm); "
                "correct the header that is wrong, or resample the label to the image's grid"
            )

    def _check_values(self, label: torch.Tensor, name: str) -> None:
        if label.is_floating_point() and (label != label.round()).any():
            raise ValueError(
                f"{name}: expected integers, found {_distinct(label[label != label.round()])}; a label map must "
                "be resampled with nearest neighbours and saved unscaled"
            )
        count = self.num_classes if len(label) == 1 else 2
        if count is None or (label.min() >= 0 and label.max() < count):
            return
        names = ("background", *self.class_names) if self.softmax else ()
        table = f" ({', '.join(f'{value} {text}' for value, text in enumerate(names))})" if names[1:] else ""
        raise ValueError(
            f"{name}: expected values from 0 to {count - 1}{table}, found also "
            f"{_distinct(label[(label < 0) | (label >= count)])}; correct the label, or add the class to the "
            "table of concepts"
        )


def _require_room(volume: Any, key: Hashable, pixdim: Sequence[float]) -> None:
    """Raise an error if the machine cannot hold a volume resampled to voxels of `pixdim` mm."""
    if not isinstance(volume, MetaTensor) or volume.ndim != 1 + SPATIAL_DIMS or len(pixdim) != SPATIAL_DIMS:
        return
    old = volume.pixdim.tolist()
    size = [int((n - 1) * was / new) + 1 for n, was, new in zip(volume.shape[1:], old, pixdim, strict=True)]
    require_memory(
        prod(size) * (BYTES_A_VOXEL + BYTES_A_CHANNEL * len(volume)),
        f"{loaded_from(volume, key)}: resampling it from {by(volume.shape[1:])} voxels of {by(old)} mm to {by(size)} "
        f"of {by(map(float, pixdim))} mm",
        "Correct the voxel size in its header if it is wrong, crop the image, or use larger voxels (spacing).",
    )


def _check_grid(volume: torch.Tensor, name: str, channels: Sequence[int], advice: str) -> None:
    found, *shape = volume.shape
    if len(shape) != SPATIAL_DIMS or min(shape) == 1:
        raise ValueError(
            f"{name}: expected {SPATIAL_DIMS} spatial dimensions of more than one voxel each, found "
            f"{len(shape)} (shape {by(shape)}); a file holds one volume, neither a slice nor a series"
        )
    if volume.numel() == 0:
        raise ValueError(f"{name}: expected voxels, found none (shape {by(shape)}); export the file again")
    if found not in channels:
        raise ValueError(
            f"{name}: expected {' or '.join(map(str, channels))} channel(s), found {found} (shape "
            f"{by(shape)}; the last axis of a 4D file counts as channels); extract the volume to use, or "
            f"{advice}"
        )


def _check_finite(volume: torch.Tensor, name: str) -> None:
    if not volume.is_floating_point() or volume.isfinite().all():
        return
    nan, infinite = int(volume.isnan().sum()), int(volume.isinf().sum())
    raise ValueError(
        f"{name}: expected finite voxels, found {nan} NaN and {infinite} infinite of {volume.numel()}; "
        "replace them, for example by the value of air, or export the file again"
    )


def _check_content(image: torch.Tensor, name: str) -> None:
    low, high = image.min(), image.max()
    if low == high:
        raise ValueError(
            f"{name}: expected a volume with content, found {low.item():g} in every voxel; export the file "
            "again, or take the case out of the datalist"
        )


def _rows(affine: torch.Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in affine[:SPATIAL_DIMS].tolist()]


def _distinct(values: torch.Tensor) -> str:
    return some((f"{value:g}" for value in torch.as_tensor(values).unique().tolist()), most=10)
