"""A model that has learnt from CT in HU is given CT shifted by 1024: every way to use it says so and names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

Run = Callable[..., None]
SAID = "may be unlike the images of the model's training: its values run from"


@pytest.fixture
def shifted(trained: Any, tmp_path: Path) -> Path:
    """A copy of the data whose test section has the case as it was, and shifted as CT stored without its intercept."""
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    (path,) = (data / "imagesTs").iterdir()
    image = nib.load(path)
    nib.save(
        nib.Nifti1Image((np.asarray(image.dataobj) + 1024).astype(np.int16), image.affine), data / "imagesTs/z.nii.gz"
    )
    content = json.loads((data / "dataset.json").read_text())
    label = content["test"][0]["label"]
    content["test"].append({"image": "imagesTs/z.nii.gz", "label": label})
    (data / "dataset.json").write_text(json.dumps(content))
    return data


def test_inference(
    run: Run, trained: Any, tiny: dict[str, Any], shifted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run("inference", "inference.yaml", **tiny, dataset_dir=str(shifted / "imagesTs"), ckpt_path=str(trained.best))
    said = [record.getMessage() for record in caplog.records if SAID in record.getMessage()]
    assert len(said) == 1
    assert str(shifted / "imagesTs/z.nii.gz") in said[0]
    assert "shifted by about +1024, as of CT stored without its intercept" in said[0]
    assert len(list((tmp_path / "runs/predictions").glob("*_seg.nii.gz"))) == 2


def test_first_image_is_asked_about(
    failing_run: Callable[..., BaseException], trained: Any, tiny: dict[str, Any], shifted: Path
) -> None:
    options = {**tiny, "dataset_dir": str(shifted / "imagesTs/z.nii.gz"), "ckpt_path": str(trained.best)}
    message = r"images of the other kind\. Of .*z\.nii\.gz: .*shifted by about \+1024.*--other_images True"
    failing_run(ValueError, message, "inference", "inference.yaml", **options)


def test_evaluation(run: Run, trained: Any, shifted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    overlay = tmp_path / "there.yaml"
    overlay.write_text("prepare_data: null\n")
    own = {key: value for key, value in trained.options.items() if not key.startswith("prepare_data")}
    options = {**own, "dataset_dir": str(shifted), "ckpt_path": str(trained.best), "evaluate_on": "test"}
    run("evaluating", "train.yaml", str(overlay), "evaluate.yaml", **options)
    said = [record.getMessage() for record in caplog.records if SAID in record.getMessage()]
    assert len(said) == 1
    assert "z.nii.gz" in said[0]


def test_client_of_a_server_is_told(bundle_root: Path, trained: Any, tiny: dict[str, Any], shifted: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(bundle_root / "configs/inference.yaml"))
    parser.update({**tiny, "bundle_root": str(bundle_root), "ckpt_path": str(trained.best)})
    case = parser.get_parsed_content("preprocessing")({"image": str(shifted / "imagesTs/z.nii.gz")})
    assert "shifted by about +1024" in case["result"]["warning"]


def test_model_that_does_not_tell_is_used_without_a_word(
    run: Run, trained: Any, tiny: dict[str, Any], shifted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(dict(torch.load(trained.best)), tmp_path / "old.pt")
    run(
        "inference", "inference.yaml", **tiny, dataset_dir=str(shifted / "imagesTs"), ckpt_path=str(tmp_path / "old.pt")
    )
    assert SAID not in caplog.text
