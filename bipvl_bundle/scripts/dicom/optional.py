"""The libraries that only DICOM needs: imported where they are installed, asked for where they are not."""

from __future__ import annotations

from monai.utils import optional_import

__all__ = ["codes", "highdicom", "nibabel", "pydicom", "require_dicom"]

nibabel, _has_nibabel = optional_import("nibabel")
pydicom, _has_pydicom = optional_import("pydicom")
highdicom, _has_highdicom = optional_import("highdicom")
codes, _ = optional_import("pydicom.sr.codedict", name="codes")


def require_dicom() -> None:
    """Say what to install where one of the libraries is absent.

    Raises:
        ImportError: one is; the message names it.
    """
    present = {"nibabel": _has_nibabel, "pydicom": _has_pydicom, "highdicom": _has_highdicom}
    absent = [name for name, found in present.items() if not found]
    if absent:
        raise ImportError(
            f"Reading and writing DICOM needs {' and '.join(absent)}: not installed here. Install "
            "with `pip install pydicom highdicom`; nothing else of this bundle needs them."
        )
