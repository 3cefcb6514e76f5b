from __future__ import annotations

import csv
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.report.volumes import class_volumes, write_prediction_volumes


def test_volume_and_intensity_of_a_class(labels: np.ndarray) -> None:
    image = np.where(labels == 1, 40.0, 0.0)
    image[1, 2, 2] = 136.0
    rows = class_volumes(labels, image, 0.024, ["liver", "kidney", "spleen"])
    assert [row["voxels"] for row in rows] == [96, 36, 0]
    assert rows[0]["volume_ml"] == f"{96 * 0.024:.4f}"
    assert rows[0]["mean_intensity"] == "41.0000"
    assert rows[2]["volume_ml"] == "0.0000"
    assert rows[2]["mean_intensity"] == ""


def test_regions_may_overlap(labels: np.ndarray) -> None:
    regions = np.stack([labels > 0, labels == 2], axis=-1)
    rows = class_volumes(regions, np.ones(labels.shape), 1.0, ["all", "part"])
    assert [row["voxels"] for row in rows] == [132, 36]


def test_table_beside_predictions(tmp_path: Path, labels: np.ndarray) -> None:
    affine = np.diag([2.0, -3.0, 4.0, 1.0])
    nib.save(nib.Nifti1Image(labels * 10.0, affine), tmp_path / "x.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "first_seg.nii.gz")
    items = [{"case": "first", "image": str(tmp_path / "x.nii.gz")}, {"case": "gone", "image": "gone.nii.gz"}]
    write_prediction_volumes(tmp_path, items, ["liver", "kidney"])
    rows = list(csv.DictReader((tmp_path / "volumes.csv").read_text().splitlines()))
    assert [(row["case"], row["class"]) for row in rows] == [("first", "liver"), ("first", "kidney")]
    assert float(rows[1]["volume_ml"]) == pytest.approx(36 * 24 / 1000, abs=1e-4)
    assert float(rows[1]["mean_intensity"]) == 20


def test_unreadable_image_loses_no_prediction(
    tmp_path: Path, labels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "x_seg.nii.gz")
    (tmp_path / "x.nii.gz").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        write_prediction_volumes(tmp_path, [{"image": str(tmp_path / "x.nii.gz")}], ["liver", "kidney"])
    assert "were not measured" in caplog.text
    assert (tmp_path / "x_seg.nii.gz").is_file()


def test_other_grid_is_said(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected one grid"):
        class_volumes(labels, np.ones((2, 2, 2)), 1.0, ["liver"])
