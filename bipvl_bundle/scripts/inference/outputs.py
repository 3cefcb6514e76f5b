"""Masks as files: in the geometry of their images, whole or absent, and never in the place of another's file."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.transforms import SaveImaged
from numpy.typing import NDArray

from scripts.data.cases import MASK_SUFFIX, Item, case_of, images_of, mask_name
from scripts.data.loading import HEADER
from scripts.data.nifti import UnusableFile, affine_in_mm, header_of, read_header
from scripts.geometry.grid import corner_distance
from scripts.inference.naming import name_by_case
from scripts.trust.digests import check_digest
from scripts.whole_file import digest_of, whole_file
from scripts.words.table import ConceptTable

__all__ = ["SafeSaveImaged", "is_mask", "mask_key", "missing_masks", "require_own_file"]

logger = logging.getLogger(__name__)

MARK = "BiPVL-Seg"
"""Begins the description in the header of each mask; the key of its making follows."""
PLACE = [f"{kind}_code" for kind in ("qform", "sform")] + [f"quatern_{part}" for part in "bcd"]
PLACE += [f"{field}_{axis}" for field in ("qoffset", "srow") for axis in "xyz"]
"""Fields of a header that place a volume, beside its voxel sizes and unit."""
APART = 0.01
"""Share of a voxel by which a mask may lie off the header of its image and still take it."""


def mask_key(path: str | Path | None, concepts: ConceptTable, settings: Mapping[str, Any]) -> str:
    """Return a hash of what decides about masks beside their images: the model's file, the words, settings."""
    file = Path(path) if path else None
    model = (check_digest(file) or digest_of(file)) if file and file.is_file() else ""
    return hashlib.sha256(f"{model} {concepts.digest} {dict(settings)}".encode()).hexdigest()[:16]


def missing_masks(
    items: Sequence[Item], folder: str | Path, key: str, *, postfix: str = "seg", overwrite: bool = False
) -> list[Item]:
    """Return the cases whose masks are to be made: all but those that are there, by the same model, words and image.

    Args:
        items: the cases.
        folder: of the masks.
        key: by `mask_key`.
        postfix: of the masks' names.
        overwrite: make all anew.

    Raises:
        FileExistsError: in the place of a mask is a file that is none of this program's.
    """
    missing = []
    for item in items:
        path = Path(folder) / mask_name(case_of(item), postfix)
        require_own_file(path)
        if overwrite or _description(path) != _mark(key, images_of(item)[0]):
            missing.append(item)
    if len(missing) < len(items):
        done = len(items) - len(missing)
        logger.info("%d of %d masks are in %s already. --overwrite True makes them anew.", done, len(items), folder)
    return missing


def require_own_file(path: Path) -> None:
    """Raise an error if a file is there that is no mask of this program.

    Raises:
        FileExistsError: it is.
    """
    if path.exists() and not is_mask(path):
        raise FileExistsError(
            f"'{path}' is there, and is no mask that this program has written: it is not replaced. Move it away, or "
            "choose another folder (predictions_dir)."
        )


def is_mask(path: Path) -> bool:
    """Return whether a file is a mask that this program has written."""
    return _description(path).startswith(MARK)


class SafeSaveImaged(SaveImaged):
    """Transform that writes masks like MONAI's `SaveImaged`, but each whole or not at all and over no other's file.

    A mask has both transforms, their codes and the unit of the NIfTI file that its image came from, so that it lies on
    it in every reader. Arguments are those of `SaveImaged`, as far as they name the files.

    Args:
        keys: the masks, C x H x W x D, with metadata.
        output_dir: the folder.
        output_postfix: what the names of the files get at the end.
        mask_key: by `mask_key`; stands in the file.

    Raises:
        FileExistsError: in its place is a file that is none of this program's.
        OSError: the folder cannot be written, or is full.
    """

    def __init__(self, keys: Any, output_dir: str | Path, output_postfix: str = "seg", mask_key: str = "") -> None:
        super().__init__(
            keys,
            output_dir=output_dir,
            output_postfix=output_postfix,
            output_name_formatter=name_by_case,
            output_ext=MASK_SUFFIX,
            output_dtype=None,
            separate_folder=False,
            resample=False,
            print_log=False,
        )
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.key_iterator(case):
            mask = case[key]
            path = Path(self.saver.folder_layout.filename(**self.saver.fname_formatter(mask.meta, self.saver)))
            require_own_file(path)
            write_mask(mask, path, _mark(self.mask_key, mask.meta.get("filename_or_obj", "")))
        return case


def write_mask(mask: MetaTensor, path: Path, description: str = MARK) -> None:
    """Write a mask (C x H x W x D) in the geometry of the file that its image was loaded from.

    Raises:
        OSError: it cannot be written; the message names the file.
    """
    array = mask.as_tensor().cpu().numpy()
    array = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    affine = mask.affine.cpu().numpy().astype(np.float64)
    image = _in_place(array, affine, mask.meta.get(HEADER))
    image.header["descrip"] = description.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            nib.save(image, part)
    except OSError as error:
        raise OSError(f"Cannot write '{path}': {error.strerror or error}. Free space there, or choose another folder "
                      "(predictions_dir).") from error  # fmt: skip


def _in_place(array: NDArray[Any], affine: NDArray[Any], digits: Any) -> Any:
    """Return a volume with the geometry of the header; or of the affine where the two disagree."""
    header = header_of(bytes.fromhex(digits)) if isinstance(digits, str) else None
    if header is not None:
        apart = corner_distance(affine, affine_in_mm(header), array.shape[:3])
        if apart > APART * nib.affines.voxel_sizes(affine).min():
            header = None
    if header is None:
        image = nib.Nifti1Image(array, affine)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        image.header.set_xyzt_units("mm")
        return image
    own = type(header)()
    own.set_data_dtype(array.dtype)
    for name in PLACE:
        own[name] = header[name]
    own["pixdim"][:4] = header["pixdim"][:4]
    own["xyzt_units"] = int(header["xyzt_units"]) & 7
    kind = nib.Nifti2Image if isinstance(own, nib.Nifti2Header) else nib.Nifti1Image
    return kind(array, None, own)


def _mark(key: str, image: str) -> str:
    """Return the description of a mask; without a key it tells of the program alone."""
    if not key or not os.path.isfile(image):
        return MARK
    state = os.stat(image)
    of_image = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]
    return f"{MARK} {key} {of_image}"


def _description(path: Path) -> str:
    """Return the description in a file's header; empty if it is absent or has none."""
    try:
        return bytes(read_header(path)["descrip"].item()).rstrip(b"\0").decode("ascii", "replace")
    except (UnusableFile, OSError):
        return ""
