"""Files of what a trained network makes of its words, beside a page: arrays for its figures, maps of attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialCrop, SpatialPad
from numpy.typing import NDArray
from torch.nn import functional as F

from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.report.model_view import (
    as_record,
    attended,
    attention_maps,
    sentence_states,
    similarities,
    untrained_encoder,
)
from scripts.whole_file import read_rows, whole_file, write_rows, write_text

ARRAYS = "model.npz"
ATTENTION = "attention.csv"
REMARKS = "model_remarks.txt"


@dataclass(frozen=True)
class Patch:
    """A patch of a case as the network sees it, around its labels.

    Attributes:
        image: 1 x in_channels x H x W x D.
        masks: of each class, of zeros and ones.  # N x H x W x D
    """

    image: MetaTensor
    masks: NDArray[np.float32]


def patch_of(case: Mapping[str, Any], roi_size: Sequence[int], count: int, *, softmax: bool) -> Patch:
    """Cut a patch of `roi_size` around the middle of the labels out of a preprocessed case, with "image" and "label".

    Args:
        case: its label on the grid of the image
        roi_size: voxels
        count: N classes
        softmax: whether the label is a label map, else one channel a region
    """
    image, label = case["image"], case["label"]
    found = label.as_tensor().gt(0).any(dim=0).nonzero()
    centre = found.float().mean(dim=0).round().int() if len(found) else torch.tensor(image.shape[1:]) // 2
    cut, pad = SpatialCrop(roi_center=centre, roi_size=roi_size), SpatialPad(roi_size)
    image, label = cast(MetaTensor, pad(cut(image))), cast(MetaTensor, pad(cut(label))).as_tensor()
    masks = torch.stack([label[0] == i + 1 for i in range(count)]) if softmax else label > 0
    return Patch(cast(MetaTensor, image[None]), masks.float().numpy())


def write_model_files(
    folder: Path,
    network: BiPVLSeg,
    patches: Sequence[Patch],
    *,
    device: str | torch.device = "cpu",
) -> None:
    """Write the arrays of the figures and the maps of attention of the first patch.

    What cannot be had, such as the text encoder before training when its folder is gone, is left out and said in
    `model_remarks.txt`.

    Args:
        folder: that exists
        network: trained, in evaluation mode
        patches: over which the similarities are averaged
        device: of the network
    """
    remarks: list[str] = []
    arrays: dict[str, NDArray] = {}
    sentences = network.concepts.sentences_flat
    arrays["states_after"] = sentence_states(network.text_encoder, sentences)
    try:
        arrays["states_before"] = sentence_states(untrained_encoder(network), sentences)
    except (OSError, ValueError) as error:
        remarks.append(f"The sentences before training are not shown: {error}")
    images = [patch.image.as_tensor().to(device) for patch in patches]
    arrays["similarities"] = np.mean([similarities(network, image) for image in images], axis=0)
    first = patches[0]
    arrays |= {"image": first.image[0, 0].numpy(), "masks": first.masks.astype(np.uint8)}
    arrays["affine"] = first.image.affine.numpy()
    arrays |= _attention(folder, network, first, images[0], remarks)
    with whole_file(folder / ARRAYS) as part:
        np.savez_compressed(part, allow_pickle=False, **arrays)
    write_text(folder / REMARKS, "".join(f"{' '.join(line.split())}\n" for line in remarks))


def _attention(
    folder: Path, network: BiPVLSeg, patch: Patch, image: torch.Tensor, remarks: list[str]
) -> dict[str, NDArray]:
    for old in folder.glob("attention*"):
        old.unlink()
    if not network.fused_stages:
        remarks.append("No stage is fused: the image attends to no sentence.")
        return {}
    if tuple(network.memory.context) != network.concepts.sentences_flat and network.word_head is not None:
        remarks.append(
            "The image attends to the sentences that the model has learnt from, and these are not the table's: where "
            "each is looked at is not shown."
        )
        return {}
    try:
        maps = attention_maps(network, image)
    except ValueError as error:
        remarks.append(f"Where each sentence is looked at is not shown: {error}")
        return {}
    masks = torch.from_numpy(patch.masks)[None]
    found = []
    for stage, weights in maps.items():
        pooled = F.adaptive_avg_pool3d(masks, weights.shape[1:])[0].numpy()
        found.append(attended(stage, weights, pooled))
        affine = coarser(patch.image.affine.numpy(), patch.masks.shape[1:], weights.shape[1:])
        volume = nib.Nifti1Image(np.moveaxis(weights, 0, -1).astype(np.float32), affine)
        nib.save(volume, folder / f"attention_stage{stage}.nii.gz")
    write_rows(folder / ATTENTION, [as_record(one, network.concepts.classes) for one in found])
    return {f"attention_{stage}": weights for stage, weights in maps.items()}


def coarser(affine: NDArray, shape: Sequence[int], cells: Sequence[int]) -> NDArray[np.float64]:
    """Return the affine of a grid of cells that covers a grid of voxels."""
    factors = np.array(shape) / np.array(cells)
    step = np.diag([*factors, 1.0])
    step[:3, 3] = (factors - 1) / 2
    return affine @ step


def read_model_files(folder: Path) -> tuple[dict[str, NDArray], list[dict[str, str]], list[str]]:
    """Return the arrays, the rows of the table of attention and the remarks; nothing where there are none."""
    arrays: dict[str, NDArray] = {}
    if (folder / ARRAYS).is_file():
        with np.load(folder / ARRAYS, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    remarks = (folder / REMARKS).read_text(encoding="utf-8").splitlines() if (folder / REMARKS).is_file() else []
    return arrays, read_rows(folder / ATTENTION), remarks
