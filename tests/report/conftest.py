from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.report.kept_cases import keep, write_index
from scripts.whole_file import write_rows

CLASSES = ("liver", "left kidney")


def scores(folder: Path, dice: dict[str, float], classes: Sequence[str] = CLASSES) -> None:
    rows = [
        {"case": case, "class": name, "dice": value, "hd95_mm": 2.0, "nsd": value, "missed": False, "spurious": False}
        for case, value in dice.items()
        for name in classes
    ]
    write_rows(folder / "metrics_per_case.csv", rows)
    values = {f"{m}_{kind}": 0.5 for m in ("dice", "hd95_mm", "nsd") for kind in ("mean", "sd", "median")}
    counts = {"missed": 0, "spurious": 0, "cases": len(dice)}
    summary = [{"class": name, **values, **counts} for name in classes]
    write_rows(folder / "metrics_summary.csv", summary)


@pytest.fixture
def labels() -> np.ndarray:
    """Two boxes in 12 x 10 x 8 voxels."""
    found = np.zeros((12, 10, 8), dtype=np.uint8)
    found[1:5, 2:8, 2:6] = 1
    found[7:10, 3:6, 3:7] = 2
    return found


@pytest.fixture
def evaluated(tmp_path: Path, labels: np.ndarray) -> Path:
    """The folder of the scores of three cases with their label maps, below a run's folder."""
    return make_evaluated(tmp_path / "run" / "metrics", labels, {"a": 0.9, "b": 0.5, "c": 0.7})


def make_evaluated(folder: Path, labels: np.ndarray, dice: dict[str, float]) -> Path:
    folder.mkdir(parents=True)
    scores(folder, dice)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    cases = []
    for number, case in enumerate(dice):
        image = folder.parent / f"{case}.nii.gz"
        nib.save(nib.Nifti1Image(labels * 50.0 + np.arange(8), affine), image)
        prediction = np.roll(labels, number, axis=0)
        maps = {"reference": labels[None], "prediction": prediction[None]}
        cases.append(keep(folder, case, [str(image)], maps, affine))
    write_index(folder, cases)
    return folder
