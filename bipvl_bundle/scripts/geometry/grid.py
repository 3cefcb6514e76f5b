"""Voxel grids with axes along right, anterior and superior, and distances between grids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike

AXES = ("right", "anterior", "superior")
MM3_PER_ML = 1000.0


class Grid(NamedTuple):
    """Grid of a volume in RAS orientation."""

    size: tuple[int, ...]  # voxels
    spacing: tuple[float, ...]  # mm
    stored: str  # what the axes of the file point to, as "RAS" or "LPS"

    def resampled(self, spacing: Sequence[float]) -> tuple[int, ...]:
        """Return the size in voxels after resampling to `spacing` (mm); the centres of the end voxels stay."""
        pairs = zip(self.size, self.spacing, spacing, strict=True)
        return tuple(round((n - 1) * old / new + 1) for n, old, new in pairs)


def ras_grid(affine: ArrayLike, shape: Sequence[int]) -> Grid:
    """Return the RAS grid of a volume stored with `shape` and the 4 x 4 `affine` (mm).

    Raises:
        ValueError: the affine has an axis without length or direction, or the volume is not of 3 dimensions.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if len(shape) != 3:
        raise ValueError(f"expected 3 spatial dimensions, found {len(shape)} (shape {tuple(shape)})")
    lengths = nib.affines.voxel_sizes(matrix)
    axes = nib.io_orientation(matrix)[:, 0] if np.isfinite(matrix).all() else np.full(3, np.nan)
    if not (np.isfinite(axes).all() and (lengths > 0).all()):
        raise ValueError(f"expected an affine with three directions, found {matrix.tolist()}; correct the header")
    order = np.argsort(axes)
    size, spacing = (tuple(values[i] for i in order) for values in (list(shape), lengths.tolist()))
    return Grid(size, spacing, "".join(nib.aff2axcodes(matrix)))


def voxel_ml(affine: ArrayLike) -> float:
    """Return the volume of a voxel in mL, by the 4 x 4 affine (mm)."""
    return abs(float(np.linalg.det(np.asarray(affine, dtype=np.float64)[:3, :3]))) / MM3_PER_ML


def corner_distance(affine: ArrayLike, other: ArrayLike, shape: Sequence[int]) -> float:
    """Return the largest distance in mm between the corners of a volume under two 4 x 4 affines."""
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shape))], dtype=np.float64)
    moved = corners @ (np.asarray(affine, dtype=np.float64) - np.asarray(other, dtype=np.float64)).T  # 8 x 4
    return float(np.linalg.norm(moved[:, :-1], axis=1).max())
