"""A volume is segmented alike in whatever format it comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest


def test_masks_are_those_of_the_same_volume_in_nifti(
    run: Callable[..., None], trained: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    itk = pytest.importorskip("itk")
    (path,) = (trained.data / "imagesTs").iterdir()
    volume = nib.load(path)
    images = tmp_path / "images"
    images.mkdir()
    (images / "nifti.nii.gz").write_bytes(path.read_bytes())
    nib.save(nib.MGHImage(np.asarray(volume.dataobj).astype(np.int16), volume.affine), images / "freesurfer.mgz")
    image = itk.imread(str(path))
    for name in ("slicer.nrrd", "meta.mha"):
        itk.imwrite(image, str(images / name), compression=True)
    run("inference", "inference.yaml", **tiny, dataset_dir=str(images), ckpt_path=str(trained.best))
    masks = {p.name: nib.load(p) for p in (tmp_path / "runs/predictions").glob("*_seg.nii.gz")}
    assert set(masks) == {f"{name}_seg.nii.gz" for name in ("nifti", "freesurfer", "slicer", "meta")}
    expected = masks["nifti_seg.nii.gz"]
    for mask in masks.values():
        assert np.allclose(mask.affine, expected.affine, atol=1e-4)
        assert (np.asarray(mask.dataobj) == np.asarray(expected.dataobj)).mean() > 0.9999  # affines are rounded
    rows = (tmp_path / "runs/predictions/volumes.csv").read_text()
    assert all(name in rows for name in ("nifti", "freesurfer", "slicer", "meta"))
