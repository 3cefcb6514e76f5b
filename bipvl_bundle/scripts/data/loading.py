"""Transform that loads volumes as MONAI's does, by readers that check the file."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

from monai.data import MetaTensor, NibabelReader
from monai.transforms import LoadImaged
from monai.utils import ensure_tuple

from scripts.data.nifti import UnusableFile, affine_in_mm, load_nifti
from scripts.messages.phrases import first_lines, some

__all__ = ["HEADER", "NiftiReader", "SafeLoadImaged", "load_volume"]

HEADER = "nifti_header"
"""Where the header of a file stands in the metadata of its volume, as hexadecimal digits."""


class NiftiReader(NibabelReader):
    """Reader of NIfTI files by `load_nifti`: the transform that counts, in mm, and the whole file.

    MONAI's own replaces an sform by a qform, coded or not, where voxel sizes differ by 1e-5, and heeds no unit.
    """

    def read(self, data: Any, **kwargs: Any) -> Any:
        self.filenames = ensure_tuple(data)
        images = [load_nifti(name) for name in self.filenames]
        return images if len(images) > 1 else images[0]

    def _get_affine(self, img: Any) -> Any:
        return affine_in_mm(img.header)

    def _get_meta_dict(self, img: Any) -> dict[str, Any]:
        return {**super()._get_meta_dict(img), HEADER: img.header.binaryblock.hex()}


def load_volume(path: str | os.PathLike[str]) -> MetaTensor:
    """Load one file as C x H x W x D, as `SafeLoadImaged` does; raises its errors."""
    return _volume_loader()({"volume": str(path)})["volume"]


@cache
def _volume_loader() -> SafeLoadImaged:
    """The one loader of `load_volume`; MONAI looks for all its readers, and warns of absent ones, for each new one."""
    return SafeLoadImaged("volume", ensure_channel_first=True)


class SafeLoadImaged(LoadImaged):
    """Transform like MONAI's `LoadImaged` whose errors name the file, and that trusts no header without a check.

    Arguments and result are those of `LoadImaged`.

    Raises:
        UnusableFile: a file is damaged or impossible, see `load_nifti`, or its channels do not fit together.
        FileNotFoundError: it is absent.
    """

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.key_iterator(case):
            try:
                case[key] = self._loader(case[key], reader or NiftiReader())
            except (UnusableFile, FileNotFoundError, MemoryError):
                raise
            except Exception as error:  # of whatever library: it is the file's
                files = some(ensure_tuple(case[key]))
                raise UnusableFile(
                    f"{files}: cannot be read ({type(error).__name__}: {first_lines(error)}). Export or copy it again."
                ) from error
        return case
