"""What a user sees of a run: the real command, in a process of its own, from a folder that is not the bundle's."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from scripts.data.phantom.dataset import make_phantom

Options = dict[str, Any]
Screen = Callable[..., tuple[int, str]]


@pytest.fixture
def little(tiny: Options, tmp_path: Path) -> Options:
    """A training of one epoch on two cases, which it makes."""
    data = {"dataset_dir": tmp_path / "data", "prepare_data#num_training": 3, "prepare_data#num_test": 1}
    return {**tiny, **data, "num_folds": 3, "max_epochs": 1, "val_interval": 1}


def save(image: np.ndarray, path: Path) -> str:
    nib.save(nib.Nifti1Image(image.astype(np.float32), np.diag([8.0, 8.0, 8.0, 1.0])), path)
    return str(path)


@pytest.fixture
def spoilt(tmp_path: Path) -> str:
    """A folder with a sound image and one that holds an infinite value."""
    (tmp_path / "images").mkdir()
    image = np.random.default_rng(0).normal(scale=100, size=(20, 20, 20))
    save(image, tmp_path / "images/a.nii.gz")
    image[0, 0, 0] = np.inf
    save(image, tmp_path / "images/b.nii.gz")
    return str(tmp_path / "images")


def test_training_says_little_before_its_first_epoch(screen: Screen, little: Options, tmp_path: Path) -> None:
    status, said = screen("training", "train.yaml", **little)
    assert status == 0, said
    assert (tmp_path / "models/model.pt").is_file()
    assert len(said.split("Epoch 1/1: loss")[0].splitlines()) <= 60, said
    warned = [line for line in said.splitlines() if "Warning: " in line or " WARNING " in line]
    foreign = [line for line in warned if "WARNING scripts." not in line]
    assert all("parsing config_file" in line for line in foreign)  # MONAI's, before it reads the configs


def test_inference_writes_what_it_can_and_ends_with_the_reason(
    screen: Screen, spoilt: str, bundle_root: Path, tmp_path: Path
) -> None:
    """The embedded model; the error is raised in a worker process, of which torch passes on a text alone."""
    options = {"dataset_dir": spoilt, "num_workers": 1, "ckpt_dir": bundle_root / "models"}
    status, said = screen("inference", "inference.yaml", **options)
    assert status == 1
    assert (tmp_path / "runs/predictions/a_seg.nii.gz").is_file()
    assert re.search(r"\nError: 1 of 2 cases failed: b\. The first: .* All reasons: .*failures\.csv\. .*\n\Z", said)
    reasons = (tmp_path / "runs/predictions/failures.csv").read_text(encoding="utf-8")
    assert re.search(r"\nb,.*b\.nii\.gz,.*expected finite voxels, found 0 NaN and 1 infinite", reasons)
    assert "Traceback" not in said
    assert "terminating" not in said


def test_postprocessing_is_chosen_on_the_cases_that_can_be_read(
    screen: Screen, bundle_root: Path, tmp_path: Path
) -> None:
    amounts = {"num_training": 1, "num_test": 3, "progress": False}
    make_phantom(tmp_path / "data", **amounts)
    first = sorted((tmp_path / "data/imagesTs").iterdir())[0]
    image = nib.load(first)
    nib.save(nib.Nifti1Image(np.full(image.shape, np.nan, dtype=np.float32), image.affine), first)
    options = {"dataset_dir": tmp_path / "data", "evaluate_on": "test", "ckpt_dir": bundle_root / "models"}
    options |= {f"prepare_data#{key}": value for key, value in amounts.items()}
    files = ("train.yaml", "evaluate.yaml", "report_postprocessing.yaml")
    status, said = screen("report_postprocessing", *files, **options)
    assert status == 1
    assert re.search(r"\nError: 1 of 3 cases failed: .* The others are done; .*\n\Z", said)
    written = tmp_path / "runs/metrics/postprocessing"
    assert len((written / "postprocessing.csv").read_text().splitlines()) == 1 + 8
    assert set(yaml.safe_load((written / "postprocessing.yaml").read_text())) == {"keep_largest", "remove_smaller"}
    assert len((written / "failures.csv").read_text().splitlines()) == 2


def test_misspelt_option_is_the_last_line(screen: Screen) -> None:
    status, said = screen("training", "train.yaml", roi_sise=[32, 32, 32])
    assert status == 1
    assert re.search(r"\nError: unknown key 'roi_sise' \(nearest: 'roi_size'\) .*\n\Z", said)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_says_in_one_line_how_to_go_on(
    started: Callable[..., subprocess.Popen[str]], little: Options, tmp_path: Path, number: signal.Signals
) -> None:
    with started("training", "train.yaml", folder=tmp_path, **{**little, "max_epochs": 1000}) as process:
        while not (tmp_path / "models/last.pt").exists():
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(number)
        said, _ = process.communicate()
    assert process.returncode != 0
    by = "" if number == signal.SIGINT else " by SIGTERM"
    line = rf"\nInterrupted{by}\. The state after epoch \d+ is in .*last\.pt\. .* --resume True\.\n\Z"
    assert re.search(line, said)
    assert "Traceback" not in said
