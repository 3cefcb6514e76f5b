"""Reading of NRRD, MetaImage and FreeSurfer's files as NIfTI images in memory."""

from __future__ import annotations

import gzip
import io
import logging
import math
import re
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ITKReader
from nibabel.freesurfer.mghformat import MGHError, MGHHeader
from numpy.typing import NDArray

from scripts.data.memory import require_memory
from scripts.data.unusable import UnusableFile
from scripts.messages.phrases import by, first_lines

__all__ = ["header_of_other", "load_other"]

logger = logging.getLogger(__name__)

MGH_HEADER = 284  # bytes
TRAILING = 2**26
HEADER = 2**16
"""Bytes within which the text at the beginning of a file ends."""
PLACED = {".nrrd": b"space:", ".mha": b"TransformMatrix"}
"""What a header holds that tells how the axes lie."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ADVICE = "Export or copy it again."


def load_other(path: Path) -> nib.Nifti1Image:
    """Load a volume whose name ends with one of `OTHER_SUFFIXES`, as a NIfTI image in mm with channels last.

    Raises:
        FileNotFoundError: there is none.
        UnusableFile: it is truncated or damaged, memory cannot hold it, or the package itk is absent.
    """
    header = header_of_other(path)
    shape = header.get_data_shape()
    require_memory(8 * math.prod(shape), f"{path}: a volume of {by(shape)} voxels", "Crop or resample it.")
    voxels = _voxels_of_mgz(path) if path.suffix == ".mgz" else _voxels_of_itk(path, header)
    if voxels.shape != shape:
        raise UnusableFile(f"{path}: expected {by(shape)} voxels by its header, found {by(voxels.shape)}. {ADVICE}")
    return nib.Nifti1Image(voxels, None, header)


def header_of_other(path: Path) -> nib.Nifti1Header:
    """Return what the header of such a file says as one of NIfTI; raises the errors of `load_other`."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    try:
        shape, kind, affine = _of_mgz(path) if path.suffix == ".mgz" else _of_itk(path)
    except (RuntimeError, MGHError, TypeError) as error:  # ITK's own kind
        raise UnusableFile(f"{path}: its header cannot be read ({first_lines(error)}). {ADVICE}") from error
    header = nib.Nifti1Header()
    header.set_data_dtype(kind)
    header.set_data_shape(shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1, strip_shears=True)
    header.set_xyzt_units("mm")
    return header


def _of_mgz(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], NDArray[np.float64]]:
    with gzip.open(path, "rb") as stream, np.errstate(all="ignore"):  # impossible values are refused later
        header = MGHHeader.from_fileobj(io.BytesIO(stream.read(MGH_HEADER)))
        return header.get_data_shape(), header.get_data_dtype().newbyteorder("="), header.get_affine()


def _voxels_of_mgz(path: Path) -> NDArray[Any]:
    """Read a file to its end, so that its checksum is compared."""
    with gzip.open(path, "rb") as stream:
        beginning = stream.read(MGH_HEADER)
        header = MGHHeader.from_fileobj(io.BytesIO(beginning))
        size = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
        content = beginning + stream.read(size + TRAILING)
        if stream.read(1):
            raise UnusableFile(f"{path}: holds far more than its header says. {ADVICE}")
    if len(content) < MGH_HEADER + size:
        raise UnusableFile(f"{path}: expected {size} bytes of voxels, found {len(content) - MGH_HEADER}. {ADVICE}")
    voxels = np.asarray(nib.freesurfer.MGHImage.from_bytes(content).dataobj)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def _itk(path: Path) -> Any:
    try:
        import itk
    except ImportError as error:
        raise UnusableFile(
            f"{path}: to read {path.suffix} files, install the package itk (pip install itk), or convert it to NIfTI."
        ) from error
    return itk


def _of_itk(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], NDArray[np.float64]]:
    itk = _itk(path)
    reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        raise UnusableFile(f"{path}: expected a {path.suffix} file, found none by its first bytes. {ADVICE}")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    count, channels = reader.GetNumberOfDimensions(), reader.GetNumberOfComponents()
    shape = tuple(int(reader.GetDimensions(axis)) for axis in range(count))
    affine = np.eye(4)
    for axis in range(min(count, 3)):
        affine[: min(count, 3), axis] = np.asarray(reader.GetDirection(axis))[:3] * reader.GetSpacing(axis)
        affine[axis, 3] = reader.GetOrigin(axis)
    name = reader.GetComponentTypeAsString(reader.GetComponentType())
    return shape + (channels,) * (channels > 1), _kind(name, path), LPS_TO_RAS @ affine


def _kind(name: str, path: Path) -> np.dtype[Any]:
    """Return the type of the voxels by ITK's name for it, such as unsigned_short."""
    letters = {"char": "b", "short": "h", "int": "i", "long": "l", "long_long": "q", "float": "f", "double": "d"}
    letter = letters.get(name.removeprefix("unsigned_"))
    if letter is None:
        raise UnusableFile(f"{path}: expected one number a voxel, found {name}. Convert it to a grey-scale volume.")
    return np.dtype(letter.upper() if name.startswith("unsigned_") else letter)


def _voxels_of_itk(path: Path, header: nib.Nifti1Header) -> NDArray[Any]:
    shape = header.get_data_shape()
    _require_whole(path, math.prod(shape) * header.get_data_dtype().itemsize)
    try:
        reader = ITKReader()
        voxels, _ = reader.get_data(reader.read(str(path)))
    except (RuntimeError, KeyError, TypeError) as error:  # ITK's own, and those of a type that it does not wrap
        raise UnusableFile(f"{path}: cannot be read ({first_lines(error)}). {ADVICE}") from error
    return np.asarray(voxels)


def _require_whole(path: Path, size: int) -> None:
    """Raise an error if the voxels of a file are cut off or damaged; ITK makes zeros of such a .mha.

    A checksum is there in compressed files alone; of others the length is looked at.
    """
    with path.open("rb") as stream:
        beginning = stream.read(HEADER)
        end = _end_of_header(beginning, path)
        text = beginning[:end]
        if PLACED[path.suffix] not in text:
            logger.warning("%s: its header does not say how its axes lie, left and right too; it is a guess.", path)
        units = re.search(rb"^space units:(.*)$", text, re.MULTILINE)
        if units and set(re.findall(rb'"([^"]*)"', units[1])) - {b"mm", b""}:
            raise UnusableFile(f"{path}: its unit is {units[1].decode(errors='replace').strip()}; expected mm.")
        stream.seek(end)
        if re.search(rb"^encoding:\s*(gzip|gz)\s*$", text, re.MULTILINE):
            found = _inflated(stream, 16 + zlib.MAX_WBITS, size, path)
        elif re.search(rb"^CompressedData\s*=\s*True\s*$", text, re.MULTILINE):
            found = _inflated(stream, zlib.MAX_WBITS, size, path)
        elif re.search(rb"^encoding:\s*(raw)\s*$|^ElementDataFile\s*=\s*LOCAL\s*$", text, re.MULTILINE):
            found = path.stat().st_size - end
        else:
            raise UnusableFile(f"{path}: expected raw or gzip voxels in the same file. Save it so, or as NIfTI.")
    if found < size:
        raise UnusableFile(f"{path}: expected {size} bytes of voxels, found {found}: it is cut off. {ADVICE}")


def _end_of_header(beginning: bytes, path: Path) -> int:
    pattern = rb"\r?\n\r?\n" if path.suffix == ".nrrd" else rb"^ElementDataFile[^\n]*\n"
    found = re.search(pattern, beginning, re.MULTILINE)
    if found is None:
        raise UnusableFile(f"{path}: its header has no end. {ADVICE}")
    return found.end()


def _inflated(stream: Any, bits: int, size: int, path: Path) -> int:
    """Return how many bytes a compressed stream holds, after reading it up to its checksum."""
    machine, found = zlib.decompressobj(bits), 0
    try:
        while not machine.eof and (part := stream.read(2**20)):
            while part and found <= size + TRAILING:
                found += len(machine.decompress(part, 2**24))
                part = machine.unconsumed_tail
    except zlib.error as error:
        raise UnusableFile(f"{path}: is damaged ({error}). {ADVICE}") from error
    if found > size + TRAILING:
        raise UnusableFile(f"{path}: holds far more than its header says. {ADVICE}")
    if not machine.eof:
        raise UnusableFile(f"{path}: its compressed voxels have no end: it is cut off. {ADVICE}")
    return found
