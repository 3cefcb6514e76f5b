"""Label maps on the grid of the file: probabilities are resampled back and compared there."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Invertd, MapTransform
from torch import Tensor

from scripts.data.cases import loaded_from
from scripts.data.logits import ToLabelsd, are_probabilities, check_logits, label_type
from scripts.data.way_back import Box, WayBack, way_back

__all__ = ["NativeLabelsd", "most_likely", "probable_regions"]

LINEAR, NEAREST = MODES = ("linear", "nearest")


class NativeLabelsd(MapTransform):
    """Transform from logits on the network's grid to labels on the file's grid: softmax, `Invertd`, arg-max.

    The probability of each class is resampled linearly, and the most likely class is taken at each voxel of the file.
    This goes class by class with a running arg-max: in the grid of the file memory holds the largest probability so far
    and the labels, 5 bytes a voxel, whatever the number of classes. A class is resampled only in the box where it may
    win (see `most_likely`), a slab at a time; that changes no label. Outside of what was cropped is background.

    A prediction that is marked as one of probabilities passes, resampled by nearest neighbours.

    Shapes: C x h x w x d to 1 x H x W x D of class numbers where `softmax`, in the smallest type that counts the
    classes; else to C x H x W x D of zeros and ones.

    Args:
        keys: the logits.
        transform: the preprocessing that brought the image to the network's grid.
        orig_keys: the image.
        softmax: whether the channels are classes that exclude each other, the background first (softmax), or
            regions that may overlap (sigmoid, threshold one half).
        mode: linear; or nearest, which takes the labels on the network's grid and resamples these, so that edges are
            as coarse as that grid. It is no cheaper, and is there to compare with.

    Raises:
        ValueError: at construction, another mode; at a call, logits are NaN or infinite, or not in the grid of the
            image. The message names the case.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: Any,
        orig_keys: str = "image",
        *,
        softmax: bool = True,
        mode: str = LINEAR,
    ) -> None:
        super().__init__(keys)
        if mode not in MODES:
            raise ValueError(f"NativeLabelsd: expected mode {' or '.join(MODES)}, found {mode!r}")
        self.transform = transform
        self.orig_key = orig_keys
        self.softmax = softmax
        self.mode = mode

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.keys:
            if self.mode == NEAREST or are_probabilities(case[key]):
                case = self._nearest(case, key)
            else:
                case[key] = self._linear(case[key], case[self.orig_key])
        return case

    def _nearest(self, case: dict[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        prediction = case[key]
        case = ToLabelsd(key, softmax=self.softmax)(case)
        case = Invertd(key, self.transform, orig_keys=self.orig_key, nearest_interp=True)(case)
        if not are_probabilities(prediction):
            case[key] = case[key].to(label_type(len(prediction)) if self.softmax else torch.uint8)
        return case

    @torch.no_grad()
    def _linear(self, prediction: Tensor, image: MetaTensor) -> MetaTensor:
        name = loaded_from(image, self.orig_key)
        if prediction.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"{name}: expected logits in the grid of the image, {tuple(image.shape[1:])}, found "
                f"{tuple(prediction.shape[1:])}; give the network's output for this image, before anything resamples it"
            )
        check_logits(prediction, name)
        way = way_back(image, self.transform, self.orig_key)
        choose = most_likely if self.softmax else probable_regions
        return way.wrap(choose(prediction.as_subclass(Tensor), way))


def most_likely(logits: Tensor, way: WayBack) -> Tensor:
    """Return the class of the largest probability (softmax) at each voxel of the file, the first of equal ones.

    A class can win between voxels of the network's grid only where it is ahead of the background at one of them, since
    all are mixed in the same shares. So a box around these voxels, and the cells that they are corners of, is enough.

    Shapes: logits C x h x w x d, the background first, to 1 x H x W x D.
    """
    labels = torch.zeros(way.shape, dtype=label_type(len(logits)), device=logits.device)
    boxes = [_box_around(channel > logits[0]) for channel in logits[1:]]
    everything = _joined([box for box in boxes if box is not None])
    if everything is None:
        return labels[None]
    total = _log_sum(logits, everything)
    largest = torch.ones(way.shape, device=logits.device)  # the background's, which is certain beyond the boxes
    for place, part in way.bring(_within(everything, 1 - _softmax(logits[0], total, everything), total), everything):
        largest[place] -= part
    for number, box in enumerate(boxes, start=1):
        if box is None:
            continue
        for place, part in way.bring(_within(box, _softmax(logits[number], total, box), total), box):
            labels[place].masked_fill_(part > largest[place], number)
            torch.maximum(largest[place], part, out=largest[place])
    return labels[None]


def probable_regions(logits: Tensor, way: WayBack) -> Tensor:
    """Return each region where its probability (sigmoid) is above one half.

    Shapes: logits C x h x w x d to C x H x W x D.
    """
    labels = torch.zeros((len(logits), *way.shape), dtype=torch.uint8, device=logits.device)
    for region, channel in zip(labels, logits, strict=True):
        box = _box_around(channel > 0)
        if box is not None:
            for place, part in way.bring(_within(box, channel[box].float().sigmoid(), channel), box):
                region[place] = part > 0.5
    return labels


def _box_around(mask: Tensor) -> Box | None:
    """Return the bounding box of a mask with a margin of one voxel; None if the mask is empty."""
    box = []
    for axis in range(mask.ndim):
        found = mask.any(dim=[other for other in range(mask.ndim) if other != axis]).nonzero().flatten()
        if len(found) == 0:
            return None
        box.append(slice(max(int(found[0]) - 1, 0), min(int(found[-1]) + 2, mask.shape[axis])))
    return tuple(box)


def _joined(boxes: Sequence[Box]) -> Box | None:
    if not boxes:
        return None
    return tuple(
        slice(min(row.start for row in rows), max(row.stop for row in rows)) for rows in zip(*boxes, strict=True)
    )


def _log_sum(logits: Tensor, box: Box) -> Tensor:
    """Return the log-sum-exp over all channels in a box, channel by channel; 0 outside it."""
    inner = logits[(slice(None), *box)]
    peak = inner[0].float()
    for channel in inner[1:]:
        peak = torch.maximum(peak, channel.float())
    total = torch.zeros_like(peak)
    for channel in inner:
        total += (channel.float() - peak).exp_()
    return _within(box, peak + total.log_(), logits[0])


def _softmax(channel: Tensor, log_sum: Tensor, box: Box) -> Tensor:
    return (channel[box].float() - log_sum[box]).exp_()


def _within(box: Box, values: Tensor, like: Tensor) -> Tensor:
    """Return a volume with these values in the box and 0 outside."""
    volume = torch.zeros(like.shape, device=like.device)
    volume[box] = values
    return volume
