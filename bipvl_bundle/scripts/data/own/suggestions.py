"""Suggested settings of a new data set, each with a reason, and the overlay's text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scripts.data.own.survey import Survey
from scripts.messages.phrases import by, byte_size

STRIDE = 32  # what Swin UNETR divides an edge by
LARGEST_EDGE = 96  # voxels; the paper's
FEWEST_CELLS = 4  # at the last stage; see "Known limits" in docs/method.md
CACHE = 16e9  # bytes of main memory
VOXEL_BYTES = 4  # float32, image and label
WINDOW_STEP = 10  # HU

_CROP = """\
  - _target_: CropForegroundd
    keys: [image, label]
    source_key: image
    allow_smaller: true
    allow_missing_keys: true
"""
_ZSCORE = """\
  - _target_: NormalizeIntensityd
    keys: image
    nonzero: {nonzero}
    channel_wise: true
"""
_WINDOW = """\
  - _target_: ScaleIntensityRanged
    keys: image
    a_min: {low} # HU
    a_max: {high} # HU
    b_min: 0.0
    b_max: 1.0
    clip: true
"""
_MAP = """\
label_transforms: # from the values in the files to 1, 2, ... in the order of the classes
  - _target_: scripts.data.label_maps.MapKnownLabelsd
    keys: [label, reference]
    orig_labels: {values}
    target_labels: {numbers}
    allow_missing_keys: true
"""
_REGIONS = """\
label_transforms: # from the values in the files to one channel for each region
  - _target_: scripts.data.label_maps.LabelsToRegionsd
    keys: [label, reference]
    regions: {values}
    allow_missing_keys: true
"""


class DatasetPlan(NamedTuple):
    """What the user says about the data set.

    `label_values` are the values in the files, class by class; lists of them make overlapping regions.
    """

    name: str
    classes: Sequence[str]
    modality: str
    num_folds: int
    label_values: Sequence[Any] = ()


class Suggestion(NamedTuple):
    """A suggested value and its reason."""

    value: Any
    reason: str


def suggest_spacing(found: Survey) -> Suggestion:
    """Suggest the median spacing, rounded to two digits."""
    spacings = np.array([header.grid.spacing for header in found.headers])
    value = [float(f"{length:.2g}") for length in found.median_spacing()]
    ranges = [f"{low:.3g}" if np.isclose(low, high) else f"{low:.3g} to {high:.3g}" for low, high in _ends(spacings)]
    return Suggestion(value, f"mm, along right, anterior, superior: the median; found {', '.join(ranges)}")


def suggest_roi(found: Survey, spacing: Sequence[float]) -> Suggestion:
    """Suggest edges of 32, 64 or 96 voxels that hold nine tenths of the median volume.

    Where fewer than four cells would be left at the network's last stage, the edges that fit most tightly grow.
    """
    size = np.median(found.sizes(spacing), axis=0)
    edges = np.clip(np.ceil(size / STRIDE - 0.1), 1, LARGEST_EDGE // STRIDE).astype(int)
    while edges.prod() < FEWEST_CELLS:
        edges[np.argmax(size / edges)] += 1
    reason = f"voxels, multiples of {STRIDE}; the median volume has {by(size.tolist())} at this spacing"
    return Suggestion((edges * STRIDE).tolist(), reason)


def suggest_intensity(plan: DatasetPlan, found: Survey) -> Suggestion:
    """Suggest a window around the labelled voxels for CT, a z-score otherwise."""
    if plan.modality.upper() == "CT":
        return _suggest_window(found)
    if found.lowest < 0:
        reason = f"z-score of all voxels, without cropping at zero: values go down to {found.lowest:.4g}"
        return Suggestion(_ZSCORE.format(nonzero="false"), reason)
    reason = f"z-score of the voxels that are not zero, since {plan.modality} has no fixed scale"
    return Suggestion(_CROP + _ZSCORE.format(nonzero="true"), reason)


def suggest_flips(classes: Sequence[str]) -> Suggestion:
    """Suggest flips along left-right unless a class name has a side; none along other axes."""
    sided = [name for name in classes if re.search(r"\b(left|right)\b", name.replace("_", " ").casefold())]
    if sided:
        return Suggestion([0.0, 0.0, 0.0], f"along right, anterior, superior; a flip would mirror '{sided[0]}'")
    reason = "along right, anterior, superior; no class name has a side; set 0 if only its side tells a class"
    return Suggestion([0.1, 0.0, 0.0], reason)


def suggest_cache(found: Survey, spacing: Sequence[float]) -> Suggestion:
    """Suggest the share of cases that fits into 16 GB."""
    channels = found.channels + found.label_channels
    size = float(found.sizes(spacing).prod(axis=1).sum()) * channels * VOXEL_BYTES
    share = min(1.0, CACHE / size)
    reason = f"of the cases kept in main memory; all of them take up to {byte_size(size)}"
    return Suggestion(float(f"{share:.1g}") if share < 1 else 1.0, reason)


def overlay_text(plan: DatasetPlan, found: Survey) -> str:
    """Return the content of `dataset_<name>.yaml`."""
    name, spacing, flips = plan.name, suggest_spacing(found), suggest_flips(plan.classes)
    roi, cache, intensity = (
        suggest_roi(found, spacing.value),
        suggest_cache(found, spacing.value),
        suggest_intensity(plan, found),
    )
    return f"""\
# {name}: {len(plan.classes)} classes in {plan.modality}, {len(found.headers)} labelled cases.
# Goes on train.yaml or inference.yaml. The values are suggestions from the headers of all cases and the voxels of
# {found.sampled} of them; change what you know better.

dataset_name: {name}
dataset_dir: "$@bundle_root + '/data/{name}'" # its dataset.json says where the volumes are
prepare_data: null
ckpt_dir: "$@output_dir + '/models'"
num_folds: {plan.num_folds} # the split stands in dataset.json

in_channels: {found.channels}
spacing: {spacing.value} # {spacing.reason}
roi_size: {roi.value} # {roi.reason}
intensity: # {intensity.reason}
{intensity.value}{_labels(plan, found)}flip_prob: {flips.value} # {flips.reason}

backbone#network#feature_size: 24 # 48 for the paper's Swin UNETR, on a GPU
max_epochs: 300
val_interval: 10 # epochs
learning_rate: 5.0e-4
cache_rate: {cache.value} # {cache.reason}
"""


def _labels(plan: DatasetPlan, found: Survey) -> str:
    """Return the overlay's lines that map label values to classes or regions; empty if labels are 1 to N."""
    values = list(plan.label_values)
    if any(isinstance(value, list) for value in values):
        return f"softmax: false # regions overlap\n{_REGIONS.format(values=values)}"
    if values and values != list(range(1, len(values) + 1)):
        return _MAP.format(values=values, numbers=list(range(1, len(values) + 1)))
    return "softmax: false # one channel of zeros and ones for each region\n" if found.label_channels > 1 else ""


def _suggest_window(found: Survey) -> Suggestion:
    if not found.foreground:
        return Suggestion(_WINDOW.format(low=-175, high=250) + _CROP, "soft tissue: the sample has no labelled voxel")
    low, middle, high = found.foreground
    bottom, top = int(np.floor(low / WINDOW_STEP)) * WINDOW_STEP, int(np.ceil(high / WINDOW_STEP)) * WINDOW_STEP
    reason = f"99% of the labelled voxels lie between {low:.0f} and {high:.0f}, half of them below {middle:.0f}"
    if found.lowest >= 0:
        reason += f". BUT NO VALUE IS BELOW {found.lowest:g}: are these HU?"
    return Suggestion(_WINDOW.format(low=bottom, high=max(top, bottom + WINDOW_STEP)) + _CROP, reason)


def _ends(values: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(values.min(axis=0).tolist(), values.max(axis=0).tolist(), strict=True))
