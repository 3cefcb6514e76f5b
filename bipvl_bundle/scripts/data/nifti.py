"""Reading of NIfTI files, and of others as if they were: whole, in millimetres, by one rule which transform counts."""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from scripts.data.cases import OTHER_SUFFIXES
from scripts.data.memory import require_memory
from scripts.data.other_formats import header_of_other, load_other
from scripts.data.unusable import UnusableFile
from scripts.geometry.grid import corner_distance
from scripts.messages.phrases import by, first_lines

__all__ = ["UnusableFile", "affine_in_mm", "header_of", "load_nifti", "load_ras", "read_header"]

logger = logging.getLogger(__name__)

MILLIMETRES = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
"""Length of the unit in `xyzt_units`: not said, metre, millimetre, micrometre."""
SMALLEST, LARGEST = 1e-3, 100.0
"""Edges of a voxel in mm that are believed."""
FARTHEST = 1e5
"""Distance in mm of the first voxel from the origin that is believed."""
CODES = range(6)
"""Values of `sform_code` and `qform_code` that NIfTI defines."""
HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348
TRAILING = 2**26
"""Bytes behind the voxels that are read without asking."""
ADVICE = "Export or copy it again"

_silent = logging.getLogger(f"{__name__}.silent")
_silent.disabled = True


def load_nifti(path: str | os.PathLike[str]) -> Any:
    """Load a file as a NIfTI image of nibabel; a compressed one is read to its end, so that damage is found.

    Of another format than NIfTI (`OTHER_SUFFIXES`) the image is made in memory.

    The image's affine is in the unit of the header: see `affine_in_mm`.

    Raises:
        FileNotFoundError: there is none.
        UnusableFile: it is truncated or damaged, its header is impossible, or memory cannot hold it.
    """
    with _naming(Path(path)) as file:
        if not file.name.endswith(OTHER_SUFFIXES):
            return _loaded(file)
        _checked(header_of_other(file), file)
        return load_other(file)


def load_ras(path: str | os.PathLike[str]) -> Any:
    """Load a file as a nibabel image whose axes run right, anterior and superior; its affine is `affine_in_mm`.

    Raises:
        FileNotFoundError: there is none.
        UnusableFile: as for `load_nifti`.
    """
    image = load_nifti(path)
    placed = nib.Nifti1Image(image.dataobj, affine_in_mm(image.header), dtype=image.get_data_dtype())
    return nib.as_closest_canonical(placed)


def read_header(path: str | os.PathLike[str]) -> Any:
    """Return the checked header of a NIfTI file without reading its voxels; raises the errors of `load_nifti`."""
    with _naming(Path(path)) as file:
        if file.name.endswith(OTHER_SUFFIXES):
            return _checked(header_of_other(file), file)
        with _opened(file) as stream:
            return _header(stream.read(HEADER_BYTES), file)


def _checked(header: Any, file: Path) -> Any:
    """Return the header of a file of another format after the checks of NIfTI headers."""
    header["vox_offset"] = header.single_vox_offset
    return _header(header.binaryblock, file)


@contextmanager
def _naming(path: Path) -> Iterator[Path]:
    """Context manager that turns what a damaged file raises into an error that names it."""
    try:
        yield path
    except UnusableFile:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile, HeaderDataError, ValueError, KeyError, OverflowError) as error:
        said = f"{type(error).__name__}: {first_lines(error)}"
        raise UnusableFile(f"{path}: cannot be read ({said}). {ADVICE}.") from error


def affine_in_mm(header: Any) -> NDArray[np.float64]:
    """Return the 4 x 4 transform from voxels to millimetres that counts.

    It is the sform where that has a code, else the qform where that has one, else the voxel sizes alone. ITK's readers
    and nibabel go by the same codes. Neither takes the place of the other where they disagree.
    """
    if header["sform_code"] > 0:
        affine = header.get_sform()
    elif header["qform_code"] > 0:
        affine = header.get_qform()
    else:
        affine = header.get_base_affine()
    scale = MILLIMETRES[int(header["xyzt_units"]) & 7]
    return np.diag([scale, scale, scale, 1.0]) @ np.asarray(affine, dtype=np.float64)


def header_of(block: bytes) -> Any:
    """Return the header, of NIfTI-1 or NIfTI-2, that the bytes are."""
    kind = nib.Nifti2Header if len(block) == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Header
    return kind(block, check=False)


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _loaded(path: Path) -> Any:
    with _opened(path) as stream:
        beginning = stream.read(HEADER_BYTES)
        header = _header(beginning, path)
        shape, offset = header.get_data_shape(), header.get_data_offset()
        size = offset + math.prod(shape) * header.get_data_dtype().itemsize
        require_memory(size + 4 * math.prod(shape), f"{path}: a volume of {by(shape)} voxels", "Crop or resample it.")
        if not isinstance(stream, gzip.GzipFile):
            _require_length(os.path.getsize(path), size, path)
            source: Any = str(path)
        else:
            content = beginning + stream.read(max(0, size - len(beginning)))
            _require_length(len(content), size, path)
            _read_to_the_end(stream, path)
            source = io.BytesIO(content)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    _name_contradictions(str(path), header.binaryblock)
    return kind(ArrayProxy(source, header), None, header)


def _require_length(found: int, expected: int, path: Path) -> None:
    if found < expected:
        raise UnusableFile(f"{path}: expected {expected} bytes by its header, found {found}: it is cut off. {ADVICE}.")


def _read_to_the_end(stream: BinaryIO, path: Path) -> None:
    """Read what follows the voxels, up to the checksum, which Python's gzip compares at the end."""
    left = TRAILING
    while part := stream.read(2**20):
        left -= len(part)
        if left < 0:
            raise UnusableFile(f"{path}: holds far more than its header says. {ADVICE}.")


def _header(content: bytes, path: Path) -> Any:
    """Return the checked header that a file begins with."""
    if len(content) < nib.Nifti1Header.sizeof_hdr:
        raise UnusableFile(f"{path}: cannot be read (it ends within its header). {ADVICE}.")
    kinds = (nib.Nifti1Header, nib.Nifti2Header)
    kind = next((kind for kind in kinds if kind.may_contain_header(content)), None)
    if kind is None:
        raise UnusableFile(f"{path}: expected a NIfTI file, found none by its first bytes. Convert it to NIfTI.")
    block = content[: kind.template_dtype.itemsize]
    header: Any = kind(block, check=False)
    if header["magic"].item() != header.single_magic:
        raise UnusableFile(f"{path}: expected one file, found the header of a pair. Convert it to .nii.gz.")
    for name in ("sform_code", "qform_code"):
        if int(header[name]) not in CODES:
            raise UnusableFile(
                f"{path}: its {name} is {int(header[name])}; expected 0 to {CODES[-1]}. Correct the header."
            )
    if int(header["xyzt_units"]) & 7 not in MILLIMETRES:
        raise UnusableFile(f"{path}: its header has no known unit of length (xyzt_units). Correct the header.")
    header.copy().check_fix(logger=_silent, error_level=40)
    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1  # as NIfTI says
    _require_voxels(header, path)
    _require_place(header, path)
    return header


def _require_voxels(header: Any, path: Path) -> None:
    """Raise an error if the header does not tell where the voxels are and of which kind."""
    count = int(header["dim"][0])
    if not 1 <= count <= 7 or any(int(size) < 1 for size in header["dim"][1 : count + 1]):
        raise UnusableFile(f"{path}: its header has the size {by(map(int, header['dim']))} (dim). Correct the header.")
    if header.get_data_dtype().kind not in "iuf":
        found = header.get_value_label("datatype")
        raise UnusableFile(f"{path}: expected one number a voxel, found {found}. Convert it to a grey-scale volume.")
    offset, first = float(header["vox_offset"]), header.single_vox_offset
    if not first <= offset <= 2**31:
        raise UnusableFile(f"{path}: its voxels begin at byte {offset:g} (vox_offset), expected {first} or more.")
    if any(np.isinf(header[name]) for name in ("scl_slope", "scl_inter")):
        raise UnusableFile(f"{path}: its values are scaled by infinity (scl_slope, scl_inter). Correct the header.")
    header.get_slope_inter()


def _require_place(header: Any, path: Path) -> None:
    """Raise an error if the transform that counts is none."""
    coded = header["sform_code"] > 0
    if not coded and not (header["pixdim"][1:4] > 0).all():
        sizes = by(map(float, header["pixdim"][1:4]))
        raise UnusableFile(f"{path}: its voxels measure {sizes} (pixdim); expected edges above 0. Correct the header.")
    affine = affine_in_mm(header)
    edges = nib.affines.voxel_sizes(affine) if np.isfinite(affine).all() else np.full(3, np.nan)
    if not ((edges >= SMALLEST) & (edges <= LARGEST)).all():
        unit = header.get_xyzt_units()[0]
        raise UnusableFile(
            f"{path}: its voxels measure {by(map(float, edges))} mm by {_source(header)} (unit: {unit}); expected "
            f"edges from {SMALLEST:g} to {LARGEST:g} mm. Correct the header."
        )
    if abs(np.linalg.det(affine[:3, :3] / edges)) < 1e-3:
        raise UnusableFile(f"{path}: two axes of its {_source(header)} point the same way. Correct the header.")
    if np.abs(affine[:3, 3]).max() > FARTHEST:
        raise UnusableFile(
            f"{path}: its {_source(header)} puts it {np.abs(affine[:3, 3]).max():.3g} mm from the origin."
        )


def _source(header: Any) -> str:
    return "sform" if header["sform_code"] > 0 else "qform" if header["qform_code"] > 0 else "pixdim"


@lru_cache(maxsize=65536)  # once a file and process
def _name_contradictions(path: str, block: bytes) -> None:
    """Say in one line where a header contradicts itself, and what counts."""
    header = header_of(block)
    affine, source = affine_in_mm(header), _source(header)
    edges = nib.affines.voxel_sizes(affine)
    scale = MILLIMETRES[int(header["xyzt_units"]) & 7]
    if source == "pixdim":
        logger.warning("%s: neither sform nor qform is coded; how its axes lie, left and right too, is a guess.", path)
    elif np.abs(header["pixdim"][1:4] * scale / edges - 1).max() > 0.01:
        sizes = by(float(size) for size in header["pixdim"][1:4] * scale)
        logger.warning("%s: pixdim says voxels of %s mm, its %s %s mm; the %s counts.", path, sizes, source,
                       by(map(float, edges)), source)  # fmt: skip
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        try:
            other = np.diag([scale, scale, scale, 1.0]) @ header.get_qform()
        except (HeaderDataError, ValueError):
            logger.warning("%s: its qform is no rotation; the sform counts.", path)
            return
        apart = corner_distance(affine, other, header.get_data_shape()[:3])
        if not apart <= edges.max():
            logger.warning("%s: sform and qform put a corner %.3g mm apart; the sform counts.", path, apart)
