"""DSC, HD95 and NSD of binary masks, as plain functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from monai.transforms import generate_spatial_bounding_box
from torch import Tensor

# Distances are multiples of a spacing that a header stores in single precision: a surface exactly at the
# tolerance would count on one grid and not on its rotated copy. A ten-thousandth of a millimetre settles it.
TOLERANCE_SLACK_MM = 1e-4


class ClassScore(NamedTuple):
    """Scores of one class in one case.

    Attributes:
        dice: DSC, a fraction; NaN where the class is absent from both masks.
        hd95_mm: HD95 in millimetres; NaN unless both masks hold the class.
        nsd: NSD, a fraction; NaN where the class is absent from both masks, or surfaces were not asked for.
        voxels_reference: number of voxels of the class in the reference.
        voxels_prediction: number of voxels of the class in the prediction.
    """

    dice: float
    hd95_mm: float
    nsd: float
    voxels_reference: int
    voxels_prediction: int

    @property
    def missed(self) -> bool:
        """True if the class is in the reference but not in the prediction."""
        return self.voxels_reference > 0 and self.voxels_prediction == 0

    @property
    def spurious(self) -> bool:
        """True if the class is in the prediction but not in the reference."""
        return self.voxels_reference == 0 and self.voxels_prediction > 0

    @property
    def absent(self) -> bool:
        """True if the class is in neither mask."""
        return self.voxels_reference == 0 and self.voxels_prediction == 0


NOT_SCORED = ClassScore(math.nan, math.nan, math.nan, 0, 0)
"""Of a class that the reference does not label: like one that is absent."""


def surface_metrics(
    prediction: Tensor,
    reference: Tensor,
    *,
    spacing: Sequence[float],
    nsd_tolerance: float = 2.0,
    use_subvoxels: bool = False,
) -> tuple[float, float]:
    r"""Compute HD95 (eq. 17) in mm and NSD (eq. 18) as a fraction, of two non-empty masks.

    $$\mathrm{HD95} = \max(q_{95}\{d(x, \partial G) : x \in \partial P\},
                           q_{95}\{d(y, \partial P) : y \in \partial G\})$$
    $$\mathrm{NSD} = \frac{|\{x \in \partial P : d(x, \partial G) \le \tau\}|
                         + |\{y \in \partial G : d(y, \partial P) \le \tau\}|}{|\partial P| + |\partial G|}$$

    | symbol | argument |
    |---|---|
    | P, G | `prediction`, `reference`, bool  # H x W x D |
    | ∂ | the mask's voxels with a face neighbour outside the mask or outside the image |
    | d | Euclidean distance between voxel centres in millimetres, by `spacing` (one value an axis) |
    | τ | `nsd_tolerance`, in millimetres |

    With `use_subvoxels` the NSD weighs pieces of the surface by their area in mm² instead of counting voxels
    (the definition of DeepMind's surface-distance package, and of most published NSD).

    Deviations: eq. 17 and 18 look from the prediction to the reference only, which rewards a prediction that
    covers half of a structure, and eq. 18 can exceed 100% for a rough surface. Both directions count here.

    Raises:
        ValueError: a mask is empty, the shapes differ, or a spacing or the tolerance is not usable.
    """
    _check_masks(prediction, reference)
    _check_lengths(spacing, prediction.ndim, nsd_tolerance)
    if not (prediction.any() and reference.any()):
        raise ValueError("Surface metrics need a voxel in either mask, but one is empty; use class_metrics.")
    prediction, reference = _crop_to_union(prediction, reference)
    y_pred, y = prediction[None, None].cpu(), reference[None, None].cpu()  # 1 x 1 x h x w x d
    millimetres = [float(value) for value in spacing]
    hd95 = compute_hausdorff_distance(y_pred, y, include_background=True, percentile=95, spacing=millimetres)
    nsd = compute_surface_dice(
        y_pred,
        y,
        class_thresholds=[nsd_tolerance + TOLERANCE_SLACK_MM],
        include_background=True,
        spacing=millimetres,
        use_subvoxels=use_subvoxels,
    )
    return float(hd95), float(nsd)


def class_metrics(
    prediction: Tensor,
    reference: Tensor,
    *,
    spacing: Sequence[float] | None,
    nsd_tolerance: float = 2.0,
    use_subvoxels: bool = False,
) -> ClassScore:
    """Score one class: DSC (eq. 16) and, if `spacing` is given, `surface_metrics`.

    | the class is in | DSC | HD95 | NSD | |
    |---|---|---|---|---|
    | both masks | as computed | as computed | as computed | |
    | the reference only | 0 | NaN | 0 | missed |
    | the prediction only | 0 | NaN | 0 | spurious |
    | neither | NaN | NaN | NaN | absent: not counted |

    A distance to nothing has no value, so HD95 is NaN for a missed class and its mean must be read beside the
    number missed.

    Args:
        prediction: bool  # H x W x D
        reference: bool  # H x W x D
        spacing: size of a voxel along each axis, in millimetres; None leaves HD95 and NSD at NaN.
        nsd_tolerance: in millimetres.
        use_subvoxels: see `surface_metrics`.

    Raises:
        ValueError: the shapes differ, or a spacing or the tolerance is not usable.
    """
    _check_masks(prediction, reference)
    prediction, reference = _crop_to_union(prediction, reference)
    counts = int(reference.sum()), int(prediction.sum())
    if counts == (0, 0):
        return ClassScore(math.nan, math.nan, math.nan, *counts)
    if 0 in counts:
        return ClassScore(0.0, math.nan, math.nan if spacing is None else 0.0, *counts)
    dice = float(compute_dice(prediction[None, None], reference[None, None]))
    if spacing is None:
        return ClassScore(dice, math.nan, math.nan, *counts)
    hd95, nsd = surface_metrics(
        prediction, reference, spacing=spacing, nsd_tolerance=nsd_tolerance, use_subvoxels=use_subvoxels
    )
    return ClassScore(dice, hd95, nsd, *counts)


def case_metrics(
    prediction: Iterable[Tensor],
    reference: Iterable[Tensor],
    spacing: Sequence[float] | None,
    *,
    nsd_tolerance: float = 2.0,
    use_subvoxels: bool = False,
) -> list[ClassScore]:
    """Score the N classes of one case, by the rules of `class_metrics`.

    Args:
        prediction: one mask a class, bool: a tensor (N x H x W x D), or anything that yields the N masks one
            by one, so that a large label map need not be held in N copies.
        reference: likewise.
        spacing: size of a voxel along each axis, in millimetres; None computes DSC alone, which is fast.
        nsd_tolerance: in millimetres.
        use_subvoxels: see `surface_metrics`.

    Raises:
        ValueError: the numbers of masks or their shapes differ, or a spacing or the tolerance is not usable.
    """
    return [
        class_metrics(p, r, spacing=spacing, nsd_tolerance=nsd_tolerance, use_subvoxels=use_subvoxels)
        for p, r in zip(prediction, reference, strict=True)
    ]


def _check_masks(prediction: Tensor, reference: Tensor) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(
            f"Prediction and reference must have one shape, but have {tuple(prediction.shape)} and "
            f"{tuple(reference.shape)}; resample the prediction to the grid of the reference."
        )
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != torch.bool:
            raise ValueError(
                f"The {name} must be a boolean mask, but is {mask.dtype}; compare a label map with its class "
                "(label_map == 3), and threshold probabilities (p > 0.5)."
            )


def _check_lengths(spacing: Sequence[float], axes: int, nsd_tolerance: float) -> None:
    if len(spacing) != axes or not all(math.isfinite(value) and value > 0 for value in spacing):
        raise ValueError(f"The spacing must be {axes} positive lengths in mm, one an axis, but is {list(spacing)}.")
    if not (math.isfinite(nsd_tolerance) and nsd_tolerance >= 0):
        raise ValueError(f"The NSD tolerance must be a length in mm, 0 or more, but is {nsd_tolerance}.")


def _crop_to_union(prediction: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Crop both masks to the bounding box of their union.

    Where the union is empty, so is the box.
    """
    box = tuple(map(slice, *generate_spatial_bounding_box((prediction | reference)[None])))
    return prediction[box], reference[box]
