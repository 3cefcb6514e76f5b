"""The command that holds a data set against its overlay, as a user calls it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from scripts.data.check.command import check_data

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"

Check = Callable[..., str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six cases of 960 voxels, LPS, 2 mm: classes of 0 and 100 HU in air, folds as listed."""
    entries = []
    for number in range(6):
        label = np.zeros((10, 12, 8), np.uint8)
        label[2:5, 2:5, 2:5] = 1
        label[6:8, 2:5, 2:6] = 2
        save(tmp_path / f"i{number}.nii.gz", np.choose(label, (-1000, 0, 100)).astype(np.float32))
        save(tmp_path / f"l{number}.nii.gz", label)
        files = {"image": f"i{number}.nii.gz", "label": f"l{number}.nii.gz"}
        entries.append({"case": f"c{number}", **files, "fold": number % 3})
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    sentences = "\n".join(f"  - {{name: {name}, title: {name}.}}" for name in ("alpha", "beta"))
    (tmp_path / "words.yaml").write_text(f"modality: CT\nreviewed: true\nconcepts: [title]\nclasses:\n{sentences}\n")
    return tmp_path


@pytest.fixture
def check(data: Path, bundle_root: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """What is printed for the embedded recipe with that data; the answer must be the expected one."""

    def run(answer: str, **options: Any) -> str:
        arguments: dict[str, Any] = {
            "dataset_dir": str(data),
            "prepare_data": "$None",
            "concepts_file": str(data / "words.yaml"),
            "spacing": [2.0, 2.0, 2.0],
            "roi_size": [16, 16, 16],
            "workers": 0,
            "progress": False,
        }
        status: Any = 0
        try:
            check_data(str(bundle_root / "configs/train.yaml"), **{**arguments, **options})
        except SystemExit as stop:
            status = stop.code
        said = capsys.readouterr().out
        assert said.splitlines()[-1].startswith(f"{answer}: "), said
        assert status == (1 if answer == "no" else 0)
        return said

    return run


def save(path: Path, array: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(array, np.diag([-2.0, -2.0, 2.0, 1.0])), path)


def row(said: str, case: str) -> list[str]:
    return next(line.split() for line in said.splitlines() if line.startswith(f"{case} "))


class TestAnswer:
    def test_is_yes_for_good_data(self, check: Check, data: Path) -> None:
        said = check("yes", cache_rate=0.5, output=str(data / "cases.csv"))
        assert said.endswith("yes: 0 error(s), 0 warning(s)\n")
        assert "held out by fold: 2, 2, 2 of 6 cases; test cases: 0" in said
        assert " ".join(row(said, "c1")) == "c1 1 10x12x8 2x2x2 LPS 10x12x8 -1000 to 100 95% 0% 2/2 yes"
        assert row(said, "beta") == ["beta", "6/6", "4", "4", "4", "24", "24", "24"]
        assert f"cache_rate 0.5: up to {6 * 960 * 8 / 2 / 1e6:.3g} MB" in said
        with (data / "cases.csv").open(newline="") as file:
            assert [line["case"] for line in csv.DictReader(file)] == [f"c{number}" for number in range(6)]
        with pytest.raises(FileExistsError, match=r"cases\.csv' is there already"):
            check("yes", output=str(data / "cases.csv"))

    def test_is_no_for_bad_cases_and_the_others_are_read_on(self, check: Check, data: Path) -> None:
        """By two processes, with a broken, an absent and a wrong file, and a test section without labels."""
        (data / "l1.nii.gz").write_bytes(b"")
        (data / "i2.nii.gz").unlink()
        save(data / "l3.nii.gz", np.full((10, 12, 8), 5, np.uint8))
        content = json.loads((data / "dataset.json").read_text())
        (data / "dataset.json").write_text(json.dumps({**content, "test": ["i0.nii.gz", "i5.nii.gz"]}))
        said = check("no", workers=2)
        assert [row(said, f"c{number}")[-1] for number in range(6)] == ["yes", "NO", "NO", "NO", "yes", "yes"]
        assert row(said, "i5")[-2:] == ["-", "yes"]
        assert f"c1: label {data / 'l1.nii.gz'}: cannot be read (" in said
        assert f"c2: image {data / 'i2.nii.gz'}: there is no such file" in said
        assert "found also 5; correct the label" in said
        assert "error: 3 of 8 cases (c1, c2, c3) cannot be used" in said
        assert "in the training and in the test section alike: " in said

    def test_is_no_for_unfinished_words_but_the_files_are_read(self, check: Check, data: Path) -> None:
        path = data / "words.yaml"
        path.write_text(path.read_text().replace("beta.", "TODO"))
        said = check("no")
        assert row(said, "beta")[1] == "6/6"
        assert "error: words.yaml: class 'beta', concept 'title' is still to be written" in said

    def test_is_no_for_a_datalist_that_exchanges_the_classes(self, check: Check, data: Path) -> None:
        path = data / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "labels": {"1": "beta", "2": "alpha"}}))
        said = check("no")
        assert "dataset.json' calls label 1 'beta'; in the concept table that is class 2, 'beta'" in said

    def test_follows_the_overlays_intensity_and_labels(self, check: Check) -> None:
        steps = [{"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True}]
        regions = {"_target_": "scripts.data.label_maps.LabelsToRegionsd", "keys": "label", "regions": [[1, 2], [2]]}
        said = check("yes", intensity=steps, softmax=False, label_transforms=[regions], spacing=[4.0, 2.0, 2.0])
        assert "nonzero" in said.splitlines()[0]
        assert row(said, "c0")[5:] == ["6x12x8", "-1000", "to", "100", "97%", "2/2", "yes"]
        assert row(said, "alpha")[5:] == ["51", "51", "51"]


class TestWrongConfigurations:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"max_epocs": 3}, ValueError, r"(?s)no file was opened.*unknown key 'max_epocs'.*'max_epochs'"),
            ({"fold": 3}, ValueError, r"fold 3 does not exist; with num_folds 3 expected 0 to 2"),
            ({"dataset_dir": "nowhere"}, FileNotFoundError, r"no data set folder '.*nowhere'"),
            ({"concepts_file": "nowhere.yaml"}, FileNotFoundError, r"No concept table at 'nowhere\.yaml'"),
            ({"preprocessing_transforms": []}, ValueError, r"hold no scripts\.data\.transforms\.CheckCased"),
        ],
    )
    def test_are_errors(self, check: Check, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            check("no", **options)

    def test_inference_has_no_data_to_check(self, bundle_root: Path) -> None:
        with pytest.raises(ValueError, match=r"no 'num_folds': the first config file must be train\.yaml"):
            check_data(str(bundle_root / "configs/inference.yaml"), bundle_root=str(bundle_root), progress=False)


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        pytest.param("hippocampus", "Task04_Hippocampus", marks=pytest.mark.slow),
        pytest.param("brain_structures", "brain_structures", marks=pytest.mark.slow),
    ],
)
def test_real_data(bundle_root: Path, dataset: str, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"there is no ../shared/data/{folder}")
    files = [str(bundle_root / "configs" / name) for name in ("train.yaml", f"dataset_{dataset}.yaml")]
    check_data(files, bundle_root=str(bundle_root), dataset_dir=str(SHARED / folder), progress=False)
    assert capsys.readouterr().out.splitlines()[-1].startswith("yes: 0 error(s), ")
