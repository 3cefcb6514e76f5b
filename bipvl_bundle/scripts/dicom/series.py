"""Reads a folder with a DICOM series into one volume in NIfTI's conventions."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from monai.utils import optional_import
from numpy.typing import NDArray

from scripts.dicom.acquisitions import one_acquisition
from scripts.dicom.geometry import Floats, read_planes, require, stack_affine, stack_order

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Series", "highdicom", "pydicom", "read_series", "require_dicom"]

pydicom, _has_pydicom = optional_import("pydicom")
highdicom, _has_highdicom = optional_import("highdicom")
logger = logging.getLogger(__name__)

DICOM_SUFFIX = ".dcm"
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
# Slope and intercept, and nothing that is meant for display.
MODALITY_VALUES: dict[str, Any] = {
    "dtype": np.float32,
    "apply_real_world_transform": False,
    "apply_voi_transform": False,
    "apply_presentation_lut": False,
}


@dataclass(frozen=True)
class Series:
    """One CT or MR series as a volume; C columns, R rows, S slices.

    Attributes:
        label: how messages call it: number, description and UID.
        datasets: the source images, one a slice in the order of the stack, or one multi-frame image.
        image: in HU for CT, else as the scanner's rescaling has it.  # C x R x S, float32
        affine: from indices (column, row, slice) to mm in RAS+.  # 4 x 4
        frame_of: the frame of `datasets` that shows each slice of the stack.  # S
        invented: the UIDs that no file had, as after an anonymisation, and that `datasets` have for the time being.
    """

    label: str
    datasets: tuple[Dataset, ...]
    image: NDArray[np.float32]
    affine: Floats
    frame_of: NDArray[np.intp]
    invented: tuple[str, ...] = ()

    @property
    def modality(self) -> str:
        return str(self.datasets[0].get("Modality", ""))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the volume as NIfTI in its own geometry."""
        nifti = nibabel.Nifti1Image(self.image, self.affine)
        nifti.header.set_xyzt_units("mm")
        nibabel.save(nifti, path)

    def to_frames(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return a volume on this grid, C x R x S or C x R x S x N, as frames in the order of `datasets`.

        Returns:
            S x R x C or S x R x C x N.

        Raises:
            ValueError: it has another shape.
        """
        if volume.shape[:3] != self.image.shape or volume.ndim not in (3, 4):
            raise ValueError(f"{self.label} has the shape {self.image.shape}; a volume of {volume.shape} does not fit.")
        frames = np.empty_like(volume.swapaxes(0, 2))
        frames[self.frame_of] = volume.swapaxes(0, 2)
        return frames


def require_dicom() -> None:
    """Raise an error that says what to install if a DICOM library is absent.

    Raises:
        ImportError: one is; the message names it.
    """
    present = {"pydicom": _has_pydicom, "highdicom": _has_highdicom}
    absent = [name for name, found in present.items() if not found]
    if absent:
        raise ImportError(
            f"Reading and writing DICOM needs {' and '.join(absent)}: not installed here. Install "
            "with `pip install pydicom highdicom`; nothing else of this bundle needs them."
        )


def read_series(
    folder: str | os.PathLike[str], series_uid: str | None = None, acquisition: str | None = None
) -> Series:
    """Read the series of a folder; file order and names do not matter, subfolders are not read.

    Files that hold no image (a DICOMDIR, a report, a segmentation, no DICOM at all) are skipped with a word in
    the log. Single-frame files and one enhanced multi-frame file are read alike.

    Args:
        folder: with the files of one series.
        series_uid: SeriesInstanceUID of the one to take from a folder with several.
        acquisition: the one to take from a series with several, as "AcquisitionNumber=2".

    Raises:
        ImportError: pydicom or highdicom is not installed.
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: there are several series, or several acquisitions in one (`one_acquisition`); a file
            is damaged or cannot be decoded; an image is no grey-value
            slice with a place in space; or the slices are no regular volume, see `geometry.stack_order`.
    """
    require_dicom()
    source = Path(folder).expanduser()
    if not source.is_dir():
        raise FileNotFoundError(f"There is no folder '{source}'; expected one with the files of a DICOM series.")
    images = _read_images(source)
    invented = _invent_uids([dataset for _, dataset in images])
    label, files = _choose(_group(images, source), source, series_uid)
    planes = [plane for path, dataset in files for plane in read_planes(path, dataset, label)]
    multi_frame = len(planes) > len(files)
    if not multi_frame:
        taken = one_acquisition([dataset for _, dataset in files], planes, label, acquisition)
        files, planes = [files[index] for index in taken], [planes[index] for index in taken]
    if multi_frame and len(files) > 1:
        raise ValueError(f"{label} is split over {len(files)} multi-frame files; expected one file, or one a slice.")
    order = stack_order(planes, label)
    slices = np.concatenate([_pixels(path, dataset, label) for path, dataset in files])  # S x R x C
    datasets = [dataset for _, dataset in files]
    if datasets[0].get("Modality") == "CT" and slices.min() >= 0:
        logger.warning("%s is CT without a value below 0, not in HU: does it lack its rescale intercept?", label)
    return Series(
        label=label,
        datasets=tuple(datasets if multi_frame else [datasets[index] for index in order]),
        image=np.ascontiguousarray(slices[order].swapaxes(0, 2)),
        affine=stack_affine([planes[index] for index in order]),
        frame_of=np.array(order if multi_frame else range(len(order)), dtype=np.intp),
        invented=invented,
    )


def _read_images(folder: Path) -> list[tuple[Path, Dataset]]:
    images, skipped = [], []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        dataset = _read(path)
        if dataset is None:
            skipped.append(f"{path.name} (not DICOM)")
        elif "Rows" not in dataset or dataset.get("Modality") == "SEG":
            skipped.append(f"{path.name} ({_kind(dataset)})")
        else:
            images.append((path, dataset))
    if skipped:
        logger.warning("Skipped in '%s', which hold no image: %s.", folder, ", ".join(skipped))
    if not images:
        found = f"it holds {len(skipped)} other file(s)" if skipped else "it holds no file"
        raise FileNotFoundError(f"There is no DICOM image in '{folder}': {found}, and subfolders are not read.")
    return images


def _read(path: Path) -> Dataset | None:
    try:
        return pydicom.dcmread(path)
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        if isinstance(error, pydicom.errors.InvalidDicomError) and path.suffix.lower() != DICOM_SUFFIX:
            return None
        raise ValueError(f"'{path}' is damaged or no DICOM file: {error} Copy or export it again.") from error


def _kind(dataset: Dataset) -> str:
    uid = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", "no image")
    return str(getattr(uid, "name", uid))


def _invent_uids(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """Give the images the UIDs that none of them has; one that only some lack stays absent, and is refused later."""
    absent = tuple(keyword for keyword in UIDS if not any(dataset.get(keyword) for dataset in datasets))
    for keyword in absent:
        shared = pydicom.uid.generate_uid()
        for dataset in datasets:
            own = keyword == "SOPInstanceUID"
            setattr(dataset, keyword, pydicom.uid.generate_uid() if own else shared)
    return absent


def _group(images: Sequence[tuple[Path, Dataset]], folder: Path) -> dict[str, list[tuple[Path, Dataset]]]:
    groups: dict[str, list[tuple[Path, Dataset]]] = {}
    for path, dataset in images:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            require(dataset, keyword, f"'{folder}': {path.name}")
        groups.setdefault(str(dataset.SeriesInstanceUID), []).append((path, dataset))
    return groups


def _choose(
    groups: dict[str, list[tuple[Path, Dataset]]], folder: Path, uid: str | None
) -> tuple[str, list[tuple[Path, Dataset]]]:
    labels = {
        key: f"series {files[0][1].get('SeriesNumber', '?')} '{files[0][1].get('SeriesDescription', '')}' ({key})"
        for key, files in groups.items()
    }
    listed = "; ".join(f"{labels[key]}: {len(groups[key])} file(s), {groups[key][0][0].name} ..." for key in groups)
    if uid is None and len(groups) > 1:
        raise ValueError(
            f"'{folder}' holds {len(groups)} series, expected one: {listed}. Give each a folder of its own, or name "
            "one by `series_uid`."
        )
    key = next(iter(groups)) if uid is None else str(uid)
    if key not in groups:
        raise ValueError(f"'{folder}' has no series {key}; found {listed}.")
    return labels[key], groups[key]


def _pixels(path: Path, dataset: Dataset, series: str) -> NDArray[np.float32]:
    """Return the stored values of all frames with slope and intercept applied.  # F x R x C"""
    try:
        image = highdicom.Image.from_dataset(dataset)
        frames = [image.get_frame(number, **MODALITY_VALUES) for number in range(1, image.number_of_frames + 1)]
    except Exception as error:  # each decoder raises its own
        meta = getattr(dataset, "file_meta", {})
        syntax = getattr(meta.get("TransferSyntaxUID"), "name", "unknown")
        raise ValueError(
            f"{series}: the pixels of {path.name} cannot be decoded (transfer syntax {syntax}): "
            f"{' '.join(str(error).split())}. If the file is whole, install a decoder (`pip install pylibjpeg "
            "pylibjpeg-openjpeg`; docs/dicom.md tells which) or export the series uncompressed."
        ) from error
    return np.stack(frames)
