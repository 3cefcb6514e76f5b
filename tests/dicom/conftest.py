"""Series made by the tests: files as a scanner's archive would export them, from a volume and its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.utils import optional_import
from numpy.typing import NDArray

# The test modules skip where pydicom is absent; a conftest cannot.
Dataset, _ = optional_import("pydicom.dataset", name="Dataset")
FileMetaDataset, _ = optional_import("pydicom.dataset", name="FileMetaDataset")
Sequence, _ = optional_import("pydicom.sequence", name="Sequence")
uid, _ = optional_import("pydicom", name="uid")


def new_uid() -> str:
    return str(uid.generate_uid())


AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def rotation(degrees: float, axis: tuple[float, float, float]) -> NDArray[np.float64]:
    """Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


OBLIQUE = tuple(rotation(25, (1, 2, 3))[:, :2].T.ravel())


@dataclass
class Scan:
    """What the files of a series say, and the volume behind them: stored values, slices x rows x columns."""

    stored: NDArray[np.int16]
    orientation: tuple[float, ...] = AXIAL
    spacing: tuple[float, float, float] = (1.5, 2.0, 2.5)  # mm: between rows, columns, slices
    origin: tuple[float, float, float] = (-30.0, 12.5, 400.0)
    slope: float = 1.0
    intercept: float = -1024.0
    series_uid: str = field(default_factory=new_uid)
    study_uid: str = field(default_factory=new_uid)
    frame_uid: str = field(default_factory=new_uid)

    def position(self, index: float) -> list[float]:
        row, column = np.array(self.orientation).reshape(2, 3)
        return (np.array(self.origin) + index * self.spacing[2] * np.cross(row, column)).tolist()

    def common(self, storage: str) -> Any:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        dataset.SOPClassUID = storage
        dataset.SOPInstanceUID = new_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = self.study_uid, self.series_uid
        dataset.FrameOfReferenceUID = self.frame_uid
        dataset.Modality, dataset.SeriesNumber, dataset.SeriesDescription = "CT", 3, "Abdomen"
        dataset.PatientID, dataset.PatientName = "P1", "Nobody^No"
        dataset.Rows, dataset.Columns = self.stored.shape[1:]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        return dataset

    def slice(self, index: int) -> Any:
        dataset = self.common(uid.CTImageStorage)
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = [round(value, 6) for value in self.position(index)]
        dataset.ImageOrientationPatient = [round(value, 9) for value in self.orientation]
        dataset.PixelSpacing = list(self.spacing[:2])
        dataset.RescaleSlope, dataset.RescaleIntercept = self.slope, self.intercept
        dataset.PixelData = self.stored[index].tobytes()
        return dataset

    def slices(self) -> list[Any]:
        return [self.slice(index) for index in range(len(self.stored))]

    def multi_frame(self, order: list[int]) -> Any:
        """An enhanced CT image whose frames show the slices in the order given."""
        dataset = self.common(uid.EnhancedCTImageStorage)
        dataset.InstanceNumber, dataset.NumberOfFrames = 1, len(order)
        orientation, measures, values, shared = Dataset(), Dataset(), Dataset(), Dataset()
        orientation.ImageOrientationPatient = [round(value, 9) for value in self.orientation]
        measures.PixelSpacing, measures.SliceThickness = list(self.spacing[:2]), self.spacing[2]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = self.slope, self.intercept, "HU"
        shared.PlaneOrientationSequence = Sequence([orientation])
        shared.PixelMeasuresSequence = Sequence([measures])
        shared.PixelValueTransformationSequence = Sequence([values])
        dataset.SharedFunctionalGroupsSequence = Sequence([shared])
        frames = []
        for index in order:
            position, frame = Dataset(), Dataset()
            position.ImagePositionPatient = [round(value, 6) for value in self.position(index)]
            frame.PlanePositionSequence = Sequence([position])
            frames.append(frame)
        dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
        dataset.PixelData = self.stored[order].tobytes()
        return dataset


def write(dataset: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def scan() -> Scan:
    """Six oblique slices of 5 rows and 4 columns, each stored value its own number."""
    return Scan(np.arange(120, dtype=np.int16).reshape(6, 5, 4), orientation=OBLIQUE)


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    """Writes datasets to a folder as IM0000, IM0001, ... and returns the folder."""

    def write_all(datasets: list[Any], name: str = "series", first: int = 0) -> Path:
        for number, dataset in enumerate(datasets, start=first):
            write(dataset, tmp_path / name / f"IM{number:04d}")
        return tmp_path / name

    return write_all


@pytest.fixture
def axial() -> Callable[..., Scan]:
    """Makes a scan with axial slices from stored values, slices x rows x columns."""

    def make(stored: NDArray[Any], **arguments: Any) -> Scan:
        return Scan(np.asarray(stored, dtype=np.int16), **arguments)

    return make
