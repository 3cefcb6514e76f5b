"""Resampling of a volume from the network's grid back to the grid of its file, linearly and box by box."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Invertd
from monai.utils import MetaKeys, TraceKeys
from torch import Tensor

__all__ = ["AlongAxes", "Box", "StepByStep", "WayBack", "way_back"]

Box = tuple[slice, ...]
"""Rows of voxels along each axis of a grid."""

SLAB = 2**22
"""Voxels of the file's grid that are computed at a time."""
STRAIGHT = 1e-3
"""Voxels of the network's grid by which an axis of the file may leave the direction of one of its axes."""


class WayBack(Protocol):
    """Protocol of a resampling from the network's grid to the grid of the file."""

    shape: tuple[int, ...]

    def bring(self, volume: Tensor, box: Box) -> Iterator[tuple[Box, Tensor]]:
        """Resample a volume (H x W x D, 0 outside the box) to the file's grid, a part at a time, with its place there.

        What is in no part is 0.
        """

    def wrap(self, labels: Tensor) -> MetaTensor:
        """Return labels in the file's grid (C x H x W x D) with its affine and metadata."""


def way_back(image: MetaTensor, transform: Any, key: Hashable) -> WayBack:
    """Return the resampling of one case to its file's grid, the fast one where the axes allow it.

    Args:
        image: as the network read it; its metadata tell of the file, its trace what was done to it.
        transform: what did it.
        key: of the image in `transform`.
    """
    step_by_step = StepByStep(image, transform, key)
    origin = image.meta.get(MetaKeys.ORIGINAL_AFFINE)
    if origin is None:
        return step_by_step
    origin = torch.as_tensor(origin).double().cpu()
    matrix = np.linalg.solve(image.affine.double().cpu().numpy(), origin.numpy())
    axes = _axes(matrix, step_by_step.shape, image.shape[1:])
    return step_by_step if axes is None else AlongAxes(image, origin, axes)


class StepByStep:
    """Resampling by MONAI's `Invertd`: each transform of the preprocessing is undone by itself.

    It serves every preprocessing, and computes the whole grid of the file for each volume. An image that was resampled
    linearly is what probabilities are resampled by, too.
    """

    def __init__(self, image: MetaTensor, transform: Any, key: Hashable) -> None:
        sizes = [step[TraceKeys.ORIG_SIZE] for step in image.applied_operations if TraceKeys.ORIG_SIZE in step]
        self.shape = tuple(int(edge) for edge in (sizes[0] if sizes else image.shape[1:]))
        self.key, self.image = key, image
        self.invert = Invertd("volume", transform, orig_keys=key, nearest_interp=False)

    def bring(self, volume: Tensor, box: Box) -> Iterator[tuple[Box, Tensor]]:
        (found,) = self._inverted(volume)
        yield tuple(slice(0, edge) for edge in self.shape), found.as_tensor()

    def wrap(self, labels: Tensor) -> MetaTensor:
        like = self._inverted(torch.zeros(self.image.shape[1:], device=labels.device))
        return MetaTensor(labels, meta=like.meta, applied_operations=like.applied_operations)

    def _inverted(self, volume: Tensor) -> MetaTensor:
        return self.invert({self.key: self.image, "volume": MetaTensor(volume[None])})["volume"]


class Axis(NamedTuple):
    """One axis of the file's grid: the two rows of the network's grid that each of its rows is mixed of."""

    source: int  # the axis of the network's grid
    place: Tensor  # in rows of the network's grid
    rows: tuple[Tensor, Tensor]
    shares: tuple[Tensor, Tensor]  # add up to 1, but less outside of what was cropped
    size: int  # rows of the network's grid

    @classmethod
    def of(cls, source: int, place: Tensor, size: int) -> Axis:
        low, high = float(place.min()), float(place.max())
        place = place.clamp(min=-1.0 if low < -0.5 - STRAIGHT else 0.0)
        place = place.clamp(max=size if high > size - 0.5 + STRAIGHT else size - 1.0)
        first = place.floor()
        shares = [(row >= 0) * (row < size) * (1 - (place - row).abs()) for row in (first, first + 1)]
        rows = [row.long() for row in (first, first + 1)]
        return cls(source, place, (rows[0], rows[1]), (shares[0].float(), shares[1].float()), size)

    def reached_by(self, box: slice) -> slice:
        """Return the rows of the file's grid that rows of the network's grid take part in."""
        inside = self.place >= (box.start if box.start > 0 else -1)
        inside &= self.place <= (box.stop - 1 if box.stop < self.size else self.size)
        found = inside.nonzero().flatten().tolist()
        return slice(found[0], found[-1] + 1) if found else slice(0, 0)

    def mix(self, volume: Tensor, dim: int, wanted: slice, offset: int) -> Tensor:
        """Interpolate rows of the file's grid along `dim`; the volume begins at row `offset` of the network's grid."""
        shape = [-1 if axis == dim else 1 for axis in range(volume.ndim)]
        taken = [
            volume.index_select(dim, (row[wanted] - offset).clamp(0, volume.shape[dim] - 1).to(volume.device))
            for row in self.rows
        ]
        low, high = (share[wanted].to(volume.device).view(shape) for share in self.shares)
        return taken[0].mul_(low).addcmul_(taken[1], high)


class AlongAxes:
    """Resampling in one linear step, where each axis of the file lies along one of the network's grid.

    Orientation, spacing, cropping and padding keep it so. A box of the network's grid is then brought to the box of the
    file's grid that it reaches, one axis after the other, so that a volume costs what its box is large.

    Deviations from `Invertd`: none but rounding, save at the border. Where the file ends within half a voxel of the
    outermost centres of the network's grid, the outermost values go on to its end; where it goes on, something was
    cropped, and they fade to 0 over one voxel. `Invertd` does the same by the trace, not by the distance.
    """

    def __init__(self, image: MetaTensor, affine: Tensor, axes: Sequence[Axis]) -> None:
        self.axes = tuple(axes)
        self.shape = tuple(len(axis.place) for axis in axes)
        self.image, self.affine = image, affine

    def bring(self, volume: Tensor, box: Box) -> Iterator[tuple[Box, Tensor]]:
        inner = volume[box].permute([axis.source for axis in self.axes])
        offsets = [box[axis.source].start for axis in self.axes]
        first, *others = [axis.reached_by(box[axis.source]) for axis in self.axes]
        thickness = max(1, SLAB // max(1, int(np.prod([rows.stop - rows.start for rows in others]))))
        for start in range(first.start, first.stop, thickness):
            place = (slice(start, min(start + thickness, first.stop)), *others)
            part = inner
            for dim, (axis, wanted, offset) in enumerate(zip(self.axes, place, offsets, strict=True)):
                part = axis.mix(part, dim, wanted, offset)
            yield place, part

    def wrap(self, labels: Tensor) -> MetaTensor:
        meta = {**deepcopy(self.image.meta), MetaKeys.AFFINE: self.affine}
        return MetaTensor(labels, meta=meta, applied_operations=[])


def _axes(matrix: np.ndarray[Any, Any], shape: Sequence[int], sizes: Sequence[int]) -> list[Axis] | None:
    """The axes of a grid of that shape that a 4 x 4 matrix puts into one of those sizes; None if they lie across it."""
    lengths = matrix[:3, :3] * (np.array(shape) - 1)
    sources = [int(source) for source in np.abs(matrix[:3, :3]).argmax(axis=0)]
    along = np.zeros((3, 3), dtype=bool)
    along[sources, range(3)] = True
    if sorted(sources) != [0, 1, 2] or np.abs(lengths[~along]).max() > STRAIGHT:
        return None
    places = [matrix[source, axis] * np.arange(shape[axis]) + matrix[source, 3] for axis, source in enumerate(sources)]
    return [
        Axis.of(source, torch.from_numpy(place), sizes[source]) for source, place in zip(sources, places, strict=True)
    ]
