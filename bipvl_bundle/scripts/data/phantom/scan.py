"""One phantom case: a random body in a random scanner, as an image in HU and a label map."""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scripts.data.phantom.anatomy import Anatomy, Material, draw_anatomy
from scripts.data.phantom.shapes import Field, rotation_matrix, waves

AXIS_CODES = ("LPS", "RAS", "PIR", "RPI", "LAS", "SLA")
"""Storage orientations, shuffled to the cases in turn; two of them permute the axes."""


class Tissue(NamedTuple):
    """Appearance of a material in CT, in HU."""

    mean: float
    spread: float  # largest difference of one patient's mean from `mean`
    texture: float  # standard deviation of the smooth pattern within


TISSUES = {
    Material.AIR: Tissue(-1000, 0, 0),
    Material.FAT: Tissue(-100, 8, 8),
    Material.MUSCLE: Tissue(55, 6, 6),
    Material.SPLEEN: Tissue(120, 8, 5),
    Material.RENAL_CORTEX: Tissue(160, 14, 8),
    Material.RENAL_MEDULLA: Tissue(95, 12, 10),
    Material.LIVER: Tissue(105, 8, 6),
    Material.STOMACH: Tissue(35, 10, 16),
    Material.AORTA: Tissue(220, 20, 3),
    Material.CORTICAL_BONE: Tissue(400, 40, 30),
    Material.TRABECULAR_BONE: Tissue(200, 25, 25),
    Material.DISC: Tissue(90, 10, 5),
    Material.SPINAL_CANAL: Tissue(25, 5, 4),
    Material.BLADDER: Tissue(8, 4, 2),
    Material.BOWEL: Tissue(40, 12, 14),
    Material.GAS: Tissue(-850, 50, 20),
}


class PhantomCase(NamedTuple):
    """Image (int16, HU) and label map (uint8) on one grid."""

    image: nib.Nifti1Image
    label: nib.Nifti1Image


def draw_case(seed: int, section: int, index: int) -> PhantomCase:
    """Draw case `index` of a section; it does not depend on other cases.

    Args:
        seed: the data set's seed.
        section: 0 for training cases, 1 for test cases; each has a random stream of its own.
        index: from 0; also picks the storage orientation, so that a few cases already hold several.
    """
    rng = np.random.default_rng((seed, section, index))
    affine, shape = _draw_grid(rng)
    centre = affine[:3, 3] + affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    anatomy = draw_anatomy(_body_points(affine, shape, centre, rng), rng)
    hounsfield = _acquire(anatomy, np.diag(affine)[:3], rng)
    codes = AXIS_CODES[index % len(AXIS_CODES)]
    return PhantomCase(_store(hounsfield, affine, codes), _store(anatomy.labels, affine, codes))


def _draw_grid(rng: np.random.Generator) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Draw an axial scan's affine (RAS+, mm) and shape: in-plane 2.4 to 3.2 mm, slices 4 to 6 mm."""
    in_plane = rng.uniform(2.4, 3.2)
    spacing = np.array([in_plane, in_plane, rng.uniform(4.0, 6.0)])
    extent = np.array([rng.uniform(246, 256), rng.uniform(182, 192), rng.uniform(228, 240)])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -extent / 2 + rng.uniform(-60, 60, size=3)
    return affine, tuple(int(n) for n in np.floor(extent / spacing))


def _body_points(
    affine: NDArray[np.float64], shape: tuple[int, ...], centre: NDArray[np.float64], rng: np.random.Generator
) -> Field:
    """Return each voxel's position in the frame of a rotated, shifted, scaled and slightly warped body.

    Returns:
        Millimetres, RAS+.  # 3 x X x Y x Z
    """
    axes = [affine[i, i] * np.arange(n) + affine[i, 3] - centre[i] for i, n in enumerate(shape)]
    world = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    world -= rng.uniform(-5, 5, size=3).astype(np.float32)[:, None, None, None]
    pose = rotation_matrix(rng.uniform(-1, 1, size=3) * (3, 3, 7)) * np.float32(rng.uniform(0.93, 1.04))
    points = np.einsum("ij,jxyz->ixyz", np.linalg.inv(pose), world, optimize=True)
    warp = np.stack([waves(points, rng, wavelength=(90.0, 180.0)) for _ in range(3)])
    return np.asarray(points + np.float32(4.0) * warp, dtype=np.float32)


def _acquire(anatomy: Anatomy, spacing: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int16]:
    """Simulate HU from materials: a mean per patient and material, texture, the scanner's blur and noise."""
    tissues = [TISSUES[material] for material in Material]
    means = np.array([tissue.mean + tissue.spread * rng.uniform(-1, 1) for tissue in tissues])
    textures = np.array([tissue.texture for tissue in tissues])
    shape = anatomy.materials.shape
    pattern = _noise(shape, rng.uniform(5.0, 9.0) / spacing, rng)
    hounsfield = means[anatomy.materials] + textures[anatomy.materials] * pattern
    hounsfield = gaussian_filter(hounsfield, rng.uniform(1.0, 1.6) / spacing)
    hounsfield += rng.uniform(12.0, 18.0) * _noise(shape, np.full(3, 0.4), rng)
    return np.clip(np.rint(hounsfield), -1024, 3071).astype(np.int16)


def _noise(shape: tuple[int, ...], sigma: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return Gaussian noise smoothed over `sigma` voxels, with standard deviation 1."""
    noise = gaussian_filter(rng.standard_normal(shape), sigma)
    return np.asarray(noise / noise.std())


def _store(array: NDArray[np.int16] | NDArray[np.uint8], affine: NDArray[np.float64], codes: str) -> nib.Nifti1Image:
    """Reorder an array from RAS to the axis order of `codes`; world coordinates stay."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    image = nib.Nifti1Image(array, affine).as_reoriented(turn)
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    image.header.set_xyzt_units("mm")
    return image
