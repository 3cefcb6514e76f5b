"""Implicit shapes of the phantom's anatomy.

A shape is a field over points in millimetres that is negative inside, zero on the surface and grows outwards;
1 is about one radius outside. Points and fields are float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Field = NDArray[np.float32]


def rotation_matrix(angles: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the rotation by `angles` in degrees about the fixed x, y and z axes, in this order.  # 3 x 3"""
    return np.asarray(Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), dtype=np.float32)


def local_frame(points: Field, centre: Sequence[float], angles: Sequence[float]) -> Field:
    """Return coordinates in mm along the axes of a shape at `centre`, rotated by `angles`.  # 3 x X x Y x Z"""
    offsets = points - np.asarray(centre, dtype=np.float32)[:, None, None, None]
    return np.einsum("ji,jxyz->ixyz", rotation_matrix(angles), offsets, optimize=True)


def superellipsoid(local: Field, half_axes: Sequence[float], exponent: float = 2.0) -> Field:
    """Evaluate (Σ |x_i / a_i|^e)^(1/e) - 1: an ellipsoid at e = 2, boxier above.

    Args:
        local: coordinates in the shape's own frame, mm.  # 3 x X x Y x Z
        half_axes: a_i, mm.
        exponent: e.
    """
    total = sum(np.abs(axis / np.float32(half)) ** exponent for axis, half in zip(local, half_axes, strict=True))
    return np.asarray(total ** (1.0 / exponent) - 1.0, dtype=np.float32)


def tube(points: Field, centreline: NDArray[np.float64], radii: NDArray[np.float64]) -> Field:
    """Evaluate the union of balls along a line: min_j |p - c_j| / r_j - 1.

    Args:
        points: mm.  # 3 x X x Y x Z
        centreline: c_j, mm, dense enough for the balls to overlap well.  # J x 3
        radii: r_j, mm.  # J
    """
    nearest = np.full(points.shape[1:], np.inf, dtype=np.float32)
    for centre, radius in zip(centreline.astype(np.float32), radii.astype(np.float32), strict=True):
        squared = sum((axis - c) ** 2 for axis, c in zip(points, centre, strict=True))
        np.minimum(nearest, squared / radius**2, out=nearest)
    return np.sqrt(nearest) - np.float32(1.0)


def bezier(controls: Sequence[Sequence[float]], steps: int) -> NDArray[np.float64]:
    """Return a quadratic Bézier curve through the first and last of three control points.  # steps x 3"""
    t = np.linspace(0.0, 1.0, steps)[:, None]
    start, middle, end = np.asarray(controls, dtype=np.float64)
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end


def smooth_union(first: Field, second: Field, width: float) -> Field:
    """Return the union of two shapes with the seam filled over `width` (in units of the fields)."""
    blend = np.clip(0.5 + 0.5 * (second - first) / width, 0.0, 1.0)
    return np.asarray(second + (first - second) * blend - width * blend * (1.0 - blend), dtype=np.float32)


def waves(points: Field, rng: np.random.Generator, *, wavelength: tuple[float, float], count: int = 3) -> Field:
    """Return a smooth random field in ±1: the mean of `count` plane waves of random direction and phase.

    Defined in space and not on a grid, so that a shape does not depend on the scan's resolution.

    Args:
        points: mm.  # 3 x X x Y x Z
        rng: source of directions, lengths and phases.
        wavelength: shortest and longest wave, mm.
        count: waves to add.
    """
    field = np.zeros(points.shape[1:], dtype=np.float32)
    for _ in range(count):
        direction = rng.normal(size=3)
        wave = 2 * np.pi / rng.uniform(*wavelength) * direction / np.linalg.norm(direction)
        argument = np.einsum("i,ixyz->xyz", wave.astype(np.float32), points)
        field += np.sin(argument + np.float32(rng.uniform(0, 2 * np.pi)))
    return field / np.float32(count)
