"""Names of masks: after their case, which a datalist or a folder may name otherwise than its image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.data.folder_layout import default_name_formatter
from monai.transforms import MapTransform

__all__ = ["CaseNamed", "name_by_case"]

CASE = "case"


class CaseNamed(MapTransform):
    """Transform that notes the name of the case in a volume's metadata, for `name_by_case`.

    Args:
        keys: MetaTensors.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        if CASE in case:
            for key in self.keys:
                case[key].meta[CASE] = str(case[CASE])
        return case


def name_by_case(meta: dict[str, Any], saver: Any) -> dict[str, Any]:
    """Return what `SaveImage` names a file after: its case; without one, the file that it was loaded from."""
    name = default_name_formatter(meta, saver)
    return {**name, "subject": f"{meta[CASE]}.nii.gz"} if CASE in meta else name
