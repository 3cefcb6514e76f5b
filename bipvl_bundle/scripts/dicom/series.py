"""A DICOM series, read from its folder into one volume in NIfTI's conventions."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scripts.dicom.geometry import Floats, Plane, stack_affine, stack_order
from scripts.dicom.optional import highdicom, nibabel, pydicom, require_dicom

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Series", "read_series"]

logger = logging.getLogger(__name__)

DICOM_SUFFIX = ".dcm"
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
    """

    label: str
    datasets: tuple[Dataset, ...]
    image: NDArray[np.float32]
    affine: Floats
    frame_of: NDArray[np.intp]

    @property
    def modality(self) -> str:
        return str(self.datasets[0].get("Modality", ""))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the volume as NIfTI, in its own geometry."""
        nifti = nibabel.Nifti1Image(self.image, self.affine)
        nifti.header.set_xyzt_units("mm")
        nibabel.save(nifti, path)

    def to_frames(self, volume: NDArray[Any]) -> NDArray[Any]:
        """A volume on this grid, C x R x S or C x R x S x N, as frames in the order of `datasets`.

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


def read_series(folder: str | os.PathLike[str], series_uid: str | None = None) -> Series:
    """Read the series of a folder; order and names of its files do not matter, subfolders are not read.

    Files that hold no image (a DICOMDIR, a report, a segmentation, no DICOM at all) are skipped with a word in
    the log. Single-frame files and one enhanced multi-frame file are read alike.

    Args:
        folder: with the files of one series.
        series_uid: SeriesInstanceUID of the one to take from a folder with several.

    Raises:
        ImportError: pydicom or highdicom is not installed.
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: there are several series; a file is damaged or cannot be decoded; an image is no grey-value
            slice with a place in space; or the slices are no regular volume, see `geometry.stack_order`.
    """
    require_dicom()
    source = Path(folder).expanduser()
    if not source.is_dir():
        raise FileNotFoundError(f"There is no folder '{source}'; expected one with the files of a DICOM series.")
    label, files = _choose(_group(_read_images(source), source), source, series_uid)
    planes = [plane for path, dataset in files for plane in _planes(path, dataset, label)]
    multi_frame = len(planes) > len(files)
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


def _group(images: Sequence[tuple[Path, Dataset]], folder: Path) -> dict[str, list[tuple[Path, Dataset]]]:
    groups: dict[str, list[tuple[Path, Dataset]]] = {}
    for path, dataset in images:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            _require(dataset, keyword, f"'{folder}': {path.name}")
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


def _planes(path: Path, dataset: Dataset, series: str) -> list[Plane]:
    instance = f"{path.name} (instance {dataset.get('InstanceNumber', '?')})"
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise ValueError(f"{series}: {instance} is a colour image; expected grey values of CT or MR.")
    _require(dataset, "FrameOfReferenceUID", f"{series}: {instance}")
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    count = int(dataset.get("NumberOfFrames") or 1)
    if not frames and count == 1:
        return [_plane(dataset, [dataset], instance, series)]
    if len(frames) != count:
        raise ValueError(
            f"{series}: {instance} has {count} frames and tells the place of {len(frames)}; expected one slice a "
            "file, or an enhanced multi-frame image."
        )
    shared = list(_require(dataset, "SharedFunctionalGroupsSequence", f"{series}: {instance}"))
    return [
        _plane(dataset, _functional_groups([frame, *shared]), f"frame {number} of {path.name}", series)
        for number, frame in enumerate(frames, start=1)
    ]


def _functional_groups(holders: Sequence[Dataset]) -> list[Dataset]:
    names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    return [item for holder in holders for name in names for item in holder.get(name) or []]


def _plane(dataset: Dataset, holders: Sequence[Dataset], name: str, series: str) -> Plane:
    found = {}
    for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        holder = next((holder for holder in holders if keyword in holder), dataset)
        value = _require(holder, keyword, f"{series}: {name}")
        found[keyword] = np.array(value, dtype=np.float64)
        if found[keyword].shape != (length,) or not np.isfinite(found[keyword]).all():
            raise ValueError(f"{series}: {name} has {keyword} {value}; expected {length} numbers.")
    return Plane(
        name=name,
        frame_of_reference=str(dataset.FrameOfReferenceUID),
        position=found["ImagePositionPatient"],
        directions=found["ImageOrientationPatient"].reshape(2, 3),
        spacing=(float(found["PixelSpacing"][0]), float(found["PixelSpacing"][1])),
        shape=(int(dataset.Rows), int(dataset.Columns)),
    )


def _require(dataset: Dataset, keyword: str, where: str) -> Any:
    value = dataset.get(keyword)
    if value is None or value == "":
        raise ValueError(f"{where} has no {keyword}; expected a CT or MR slice with its place in space.")
    return value


def _pixels(path: Path, dataset: Dataset, series: str) -> NDArray[np.float32]:
    """Stored values with slope and intercept applied, of all frames.  # F x R x C"""
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
