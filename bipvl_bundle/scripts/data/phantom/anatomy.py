"""Anatomy of the phantom: label and material at every point of a body.

Coordinates are the body's own, in millimetres: +x to the patient's right, +y to the front, +z to the head,
the origin in the middle of the trunk. What is painted later lies over what was painted before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scripts.data.phantom.shapes import Field, bezier, local_frame, smooth_union, superellipsoid, tube, waves

CLASS_NAMES = (
    "spleen",
    "right kidney",
    "left kidney",
    "liver",
    "stomach",
    "aorta",
    "vertebra",
    "urinary bladder",
)
"""Foreground classes in label order; the label of the first is 1."""


class Material(IntEnum):
    """Materials that the simulated scanner sees; a label can hold several."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    SPLEEN = 3
    RENAL_CORTEX = 4
    RENAL_MEDULLA = 5
    LIVER = 6
    STOMACH = 7
    AORTA = 8
    CORTICAL_BONE = 9
    TRABECULAR_BONE = 10
    DISC = 11
    SPINAL_CANAL = 12
    BLADDER = 13
    BOWEL = 14
    GAS = 15


class Anatomy(NamedTuple):
    """Label map and materials of one body on one grid.  # X x Y x Z, uint8 both"""

    labels: NDArray[np.uint8]
    materials: NDArray[np.uint8]


@dataclass
class Painter:
    """Paints shapes into an `Anatomy` with size, pose and surface drawn from `rng`."""

    points: Field  # 3 x X x Y x Z
    rng: np.random.Generator
    anatomy: Anatomy

    def paint(self, mask: NDArray[np.bool_], material: Material, name: str | None = None) -> None:
        """Fill `mask` with a material and a class, or background without a class name."""
        self.anatomy.labels[mask] = CLASS_NAMES.index(name) + 1 if name else 0
        self.anatomy.materials[mask] = material

    def vary(self, values: tuple[float, ...], fraction: float) -> tuple[float, ...]:
        """Multiply each value by its own uniform draw from 1 ± `fraction`."""
        return tuple(v * self.rng.uniform(1 - fraction, 1 + fraction) for v in values)

    def move(self, values: tuple[float, ...], reach: float) -> tuple[float, ...]:
        """Add to each value its own uniform draw from ± `reach`."""
        return tuple(v + self.rng.uniform(-reach, reach) for v in values)

    def blob(self, centre: tuple[float, ...], half_axes: tuple[float, ...], tilt: float = 8.0) -> Field:
        """Draw a superellipsoid with a bumpy surface near `centre`, about `half_axes` large (mm)."""
        local = local_frame(self.points, self.move(centre, 4.0), self.move((0.0, 0.0, 0.0), tilt))
        field = superellipsoid(local, self.vary(half_axes, 0.1), self.rng.uniform(2.0, 2.7))
        return field + 0.12 * waves(self.points, self.rng, wavelength=(30.0, 60.0))


def draw_anatomy(points: Field, rng: np.random.Generator) -> Anatomy:
    """Draw a random body at the given points.

    Args:
        points: positions in the body's frame, mm.  # 3 x X x Y x Z
        rng: the source of every size, shape and place within the body.
    """
    shape = points.shape[1:]
    painter = Painter(points, rng, Anatomy(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)))
    cavity = _paint_trunk(painter)
    _paint_bowel(painter, cavity)
    _paint_spleen_liver_stomach(painter, cavity)
    bend = rng.uniform(4.0, 9.0)
    _paint_kidney(painter, "right kidney", (44.0, -29.0, -10.0), bend)
    _paint_kidney(painter, "left kidney", (-44.0, -29.0, -4.0), bend)
    bladder = painter.blob((0.0, 8.0, -86.0), painter.vary((27.0, 22.0, 17.0), 0.15))
    painter.paint(bladder < 0, Material.BLADDER, "urinary bladder")
    _paint_spine_and_aorta(painter)
    return painter.anatomy


def _paint_trunk(painter: Painter) -> NDArray[np.bool_]:
    """Paint skin, peritoneum, ribs and psoas; returns the mask where abdominal organs may lie."""
    x, y, z = painter.points
    rng = painter.rng
    waist = 1.0 - 0.05 * np.cos((z + rng.uniform(10, 50)) / 40.0)
    half_x, half_y = rng.uniform(103, 110), rng.uniform(75, 80)
    trunk = superellipsoid(np.stack([x / waist, y / waist]), (half_x, half_y), rng.uniform(2.2, 2.6))
    fat = rng.uniform(0.06, 0.15)
    painter.paint(trunk < 0, Material.FAT)
    painter.paint(trunk < -fat, Material.MUSCLE)
    rib = np.sin((z - 0.4 * y) * (2 * np.pi / rng.uniform(22, 27))) > 0.6
    painter.paint((np.abs(trunk + fat + 0.045) < 0.02) & rib & (z > 5 + 0.5 * y), Material.CORTICAL_BONE)
    cavity = trunk < -fat - 0.09
    painter.paint(cavity, Material.FAT)
    for side in (1, -1):
        depth = z / 8.0
        psoas = superellipsoid(np.stack([x - side * (29 - depth), y + 40 + depth]), (14.0, 14.0))
        painter.paint((psoas < 0) & (z < 20), Material.MUSCLE)
    return cavity


def _paint_bowel(painter: Painter, cavity: NDArray[np.bool_]) -> None:
    """Paint unlabelled loops as bright as the stomach, so that brightness alone does not separate it."""
    loops = waves(painter.points, painter.rng, wavelength=(32.0, 48.0), count=4)
    room = superellipsoid(local_frame(painter.points, (0.0, 22.0, -30.0), (0.0, 0.0, 0.0)), (74.0, 34.0, 48.0))
    painter.paint(cavity & (room < 0) & (np.abs(loops) > 0.22), Material.BOWEL)
    painter.paint(cavity & (room < -0.1) & (loops > 0.55), Material.GAS)


def _paint_spleen_liver_stomach(painter: Painter, cavity: NDArray[np.bool_]) -> None:
    rng, points = painter.rng, painter.points
    spleen = painter.blob((-64.0, -21.0, 32.0), (20.0, 32.0, 34.0), tilt=10.0)
    painter.paint(cavity & (spleen < 0), Material.SPLEEN, "spleen")

    right_lobe = painter.blob((44.0, 0.0, 40.0), (44.0, 46.0, 46.0))
    left_lobe = painter.blob((6.0, 28.0, 52.0), (40.0, 24.0, 24.0))
    painter.paint(cavity & (smooth_union(right_lobe, left_lobe, 0.3) < 0), Material.LIVER, "liver")

    controls = [painter.move(p, 4.0) for p in ((-42.0, 0.0, 64.0), (-54.0, 26.0, 22.0), (-6.0, 36.0, 14.0))]
    radii = np.linspace(rng.uniform(22.0, 26.0), rng.uniform(12.0, 15.0), 14)
    stomach = tube(points, bezier(controls, 14), radii)
    stomach += 0.1 * waves(points, rng, wavelength=(25.0, 50.0))
    painter.paint(cavity & (stomach < 0), Material.STOMACH, "stomach")
    if rng.random() < 0.6:
        # Lying on the back, the swallowed air gathers under the front wall.
        level = rng.uniform(18.0, 32.0)
        painter.paint(cavity & (stomach < -0.2) & (points[1] > level), Material.GAS, "stomach")


def _paint_kidney(painter: Painter, name: str, centre: tuple[float, float, float], bend: float) -> None:
    """Paint a bean, hollow towards the spine, with a darker centre; the other kidney is its mirror image.

    Both sides draw from the same distributions: only the place tells them apart.
    """
    rng = painter.rng
    side = 1.0 if centre[0] > 0 else -1.0
    tilt_x, tilt_y, tilt_z = painter.move((0.0, -8.0, 0.0), 6.0)
    angles = (tilt_x, side * tilt_y, side * tilt_z)
    out, front, up = local_frame(painter.points, painter.move(centre, 3.0), angles)
    half_axes = painter.vary((17.0, 16.0, 31.0), 0.1)
    bean = np.stack([side * out + bend * (up / half_axes[2]) ** 2 - bend / 3, front, up])
    kidney = superellipsoid(bean, half_axes, rng.uniform(2.0, 2.4))
    kidney += 0.06 * waves(painter.points, rng, wavelength=(25.0, 45.0))
    painter.paint(kidney < 0, Material.RENAL_CORTEX, name)
    inner = superellipsoid(bean + np.array([3.0, 0.0, 0.0], dtype=np.float32)[:, None, None, None], half_axes)
    painter.paint((kidney < -0.25) & (inner < rng.uniform(-0.5, -0.4)), Material.RENAL_MEDULLA, name)


def _paint_spine_and_aorta(painter: Painter) -> None:
    """Paint vertebrae with discs, arch and spinous processes, and the aorta in front of them."""
    x, y, z = painter.points
    rng = painter.rng
    bow_x, bow_y, phase = rng.uniform(-4, 4), rng.uniform(3, 6), rng.uniform(-20, 20)
    x = x - bow_x * np.cos((z + phase) / 60.0)
    y = y + 46.0 - bow_y * np.cos((z + phase) / 55.0)
    width, depth = painter.vary((19.0, 15.0), 0.08)
    height = rng.uniform(26.0, 31.0)
    level = np.abs((z + phase) / height - np.round((z + phase) / height)) * height
    body = superellipsoid(np.stack([x, y]), (width, depth), 2.3)
    process = superellipsoid(np.stack([x, y + depth + 11.0]), (5.0, 10.0)) + 0.9 * (level > height * 0.32)
    arch = superellipsoid(np.stack([x, y + depth + 5.0]), (13.0, 9.0))
    canal = superellipsoid(np.stack([x, y + depth + 4.0]), (7.0, 5.5))

    end, reach = rng.uniform(-64, -52), rng.uniform(8.0, 10.0)
    wobble = 2.5 * np.sin((z + phase) / 28.0)
    aorta = np.hypot(x + 7.0 + wobble, y - depth - 0.75 * reach) / reach - 1.0
    aorta = np.maximum(aorta, (end - z) / reach)
    painter.paint(aorta < 0, Material.AORTA, "aorta")

    painter.paint(np.minimum(arch, process) < 0, Material.CORTICAL_BONE, "vertebra")
    painter.paint(body < 0, Material.CORTICAL_BONE, "vertebra")
    painter.paint(body < -0.2, Material.TRABECULAR_BONE, "vertebra")
    painter.paint((body < 0) & (level > height / 2 - 3.0), Material.DISC, "vertebra")
    painter.paint(canal < 0, Material.SPINAL_CANAL)
