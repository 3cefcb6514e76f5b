"""A bundle's folder as MONAI Deploy's MonaiBundleInferenceOperator reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

PYTHON = os.environ.get("BIPVL_DEPLOY_PYTHON", "")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """An oblong image with axes that run to the left and the back."""
    affine = np.diag([-8.0, -8.0, 8.0, 1.0])
    affine[:3, 3] = 150, 90, -60
    values = np.random.default_rng(0).normal(0, 300, (40, 30, 20)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "image.nii.gz")
    return tmp_path / "image.nii.gz"


def test_image_from_memory_is_prepared_as_one_from_a_file(
    bundle_root: Path, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parser, deployed = ConfigParser(), ConfigParser()
    parser.read_config(str(bundle_root / "configs/inference.yaml"))
    parser["bundle_root"] = str(bundle_root)
    deployed.read_config([str(bundle_root / "configs" / name) for name in ("inference.yaml", "deploy.yaml")])
    assert deployed.get_parsed_content("bundle_root") == str(bundle_root)
    steps = deployed.get_parsed_content("preprocessing")
    assert not any(type(step).__name__ in ("LoadImaged", "Compose") for step in steps.transforms)
    file = nib.load(volume)
    meta = {
        "original_affine": file.affine,
        "affine": torch.from_numpy(file.affine),
        "original_channel_dim": "no_channel",
    }
    image = MetaTensor(torch.from_numpy(file.get_fdata(dtype=np.float32)), meta=meta)
    found = steps({"image": image})["image"]
    expected = parser.get_parsed_content("preprocessing")({"image": str(volume)})["image"]
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(found.affine, expected.affine)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="BIPVL_DEPLOY_PYTHON names no Python with monai-deploy-app-sdk")
def test_operator_and_inference_give_one_label_map(bundle: Path, volume: Path, tmp_path: Path) -> None:
    worker = Path(__file__).with_name("deploy_operator.py")
    configs = ["--config_file", str(bundle / "configs/inference.yaml"), "--bundle_root", str(bundle)]
    places = ["--dataset_dir", str(volume), "--output_dir", str(tmp_path / "run")]
    for command in (
        [PYTHON, "-B", str(worker), str(bundle), str(volume), "operator.npy"],
        [sys.executable, "-B", "-m", "monai.bundle", "run", *configs, *places],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    expected = nib.load(tmp_path / "run/predictions/image_seg.nii.gz").get_fdata()
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(np.load(tmp_path / "operator.npy"), expected)
