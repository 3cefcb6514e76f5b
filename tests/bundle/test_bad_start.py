"""A bad case at the start of a training: its message in the last line, and status 1."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import from_matvec

from scripts.data.datalist import training_items

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of the voxels and the affine of a label or an image."""


def with_value(value: float) -> Change:
    def change(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        voxels = voxels.astype(np.float32)
        voxels[0, 0, 0] = value
        return voxels, affine

    return change


KINDS: dict[str, tuple[str, Change | None, str]] = {
    "value outside the table": ("label", with_value(77), "expected values from 0 to 8 .*found also 77"),
    "fraction": ("label", with_value(0.5), "expected integers, found 0.5"),
    "label elsewhere": ("label", lambda v, a: (v, from_matvec(a[:3, :3], a[:3, 3] + 30)), "expected one affine"),
    "label of another shape": ("label", lambda v, a: (v[:-1], a), "expected one shape"),
    "label of two channels": ("label", lambda v, a: (np.stack([v, v], -1), a), r"expected 1 channel\(s\), found 2"),
    "one slice": ("image", lambda v, a: (v[:, :, :1], a), "more than one voxel"),
    "NaN": ("image", with_value(np.nan), "1 NaN"),
    "one value": ("image", lambda v, a: (np.zeros_like(v), a), "found 0 in every voxel"),
    "two channels": ("image", lambda v, a: (np.stack([v, v], -1), a), r"expected 1 channel\(s\), found 2"),
    "cut off label": ("label", None, "it is cut off|ended before"),
}


@pytest.mark.parametrize(
    "kind", [name if name == "fraction" else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def test_ends_with_its_message(kind: str, screen: Callable[..., tuple[int, str]], trained: Any, tmp_path: Path) -> None:
    key, change, message = KINDS[kind]
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    path = Path(training_items(data, 0, 2)[0][key])
    if change is None:
        path.write_bytes(path.read_bytes()[:-300])
    else:
        old = nib.load(path)
        voxels, affine = change(np.asarray(old.dataobj), old.affine)
        path.unlink()
        nib.save(nib.Nifti1Image(voxels, affine), path)
    status, said = screen(
        "training", "train.yaml", **{**trained.options, "dataset_dir": str(data), "spacing": [2, 2, 2]}
    )
    last = said.rstrip("\n").split("\n")[-1]
    assert status == 1, said
    assert last.startswith("Error: "), said
    assert str(path) in last
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(last)
    assert not (tmp_path / "models/model.pt").exists()
