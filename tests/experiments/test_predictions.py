from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from scripts.experiments.compare import compare_runs
from scripts.experiments.predictions import score_predictions

WORDS = {
    "modality": "CT",
    "concepts": ["shape"],
    "classes": [{"name": "liver", "shape": "A wedge."}, {"name": "spleen", "shape": "An oval."}],
}


def save(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype(np.uint8), np.diag([2.0, 2.0, 2.0, 1.0])), path)


def label(shift: int = 0) -> np.ndarray:
    data = np.zeros((12, 10, 10))
    data[2 + shift : 5 + shift, 2:6, 2:6] = 1
    data[8:11, 2:6, 2:6] = 2
    return data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two labelled test cases, and predictions: one perfect, one with its liver shifted by a voxel."""
    for n in range(2):
        save(tmp_path / "data" / f"image{n}.nii.gz", label() * 50)
        save(tmp_path / "data" / f"label{n}.nii.gz", label())
        save(tmp_path / "predictions" / f"case{n}.nii.gz", label(shift=n))
    cases = [{"case": f"case{n}", "image": f"image{n}.nii.gz", "label": f"label{n}.nii.gz"} for n in range(2)]
    other = {"case": "case2", "image": "image2.nii.gz", "label": "label2.nii.gz"}
    (tmp_path / "data/dataset.json").write_text(json.dumps({"training": [other], "test": cases}))
    (tmp_path / "words.yaml").write_text(yaml.safe_dump(WORDS))
    return tmp_path


@pytest.fixture
def score(folder: Path):
    def run(predictions: str = "predictions", **options):
        settings = {
            "dataset_dir": str(folder / "data"),
            "prepare_data": None,
            "concepts_file": str(folder / "words.yaml"),
        }
        settings |= {"evaluate_on": "test", "name": "other", **options}
        score_predictions(str(folder / predictions), "train.yaml", str(folder / "set"), **settings)
        return rows(folder / f"set/{settings['name']}/fold0_seed0/test")

    return run


def rows(folder: Path) -> dict[tuple[str, str], float]:
    with (folder / "metrics_per_case.csv").open(newline="") as file:
        return {(row["case"], row["class"]): float(row["dice"]) for row in csv.DictReader(file)}


EXPECTED = {
    ("case0", "liver"): 1.0,
    ("case0", "spleen"): 1.0,
    ("case1", "liver"): pytest.approx(2 / 3, abs=1e-6),
    ("case1", "spleen"): 1.0,
}


def test_scores_stand_where_those_of_a_run_would(score):
    assert score() == EXPECTED


def test_compare_reads_them(score, folder, capsys):
    score()
    score(name="again", title="The same again")
    compare_runs(str(folder / "set"), reference="other", evaluate_on="test")
    said = capsys.readouterr().out
    assert "The same again" in said
    assert "+0.00" in said


def test_classes_by_their_names_in_a_json_file(score, folder):
    for n in range(2):
        data = label(shift=n)
        save(folder / "renamed" / f"case{n}.nii.gz", np.where(data == 1, 7, np.where(data == 2, 4, 0)))
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Spleen": 4, "Liver": [7, 9]}}))
    assert score("renamed", labels=str(folder / "dataset.json")) == EXPECTED


def test_values_of_the_data_sets_own_files(score, folder):
    transform = {"_target_": "scripts.data.label_maps.MapKnownLabelsd", "keys": ["label", "reference"]}
    transform |= {"orig_labels": [1, 2], "target_labels": [2, 1], "allow_missing_keys": True}
    exchanged = score(labels="files", label_transforms=[transform])
    assert exchanged[("case1", "spleen")] == EXPECTED[("case1", "liver")]
    assert exchanged[("case1", "liver")] == 1.0


def test_regions_are_channels(score, folder):
    transform = {"_target_": "scripts.data.label_maps.LabelsToRegionsd", "keys": ["label", "reference"]}
    transform |= {"regions": [[1], [1, 2]], "allow_missing_keys": True}
    options = {"softmax": False, "label_transforms": [transform]}
    for n in range(2):
        data = label(shift=n)
        save(folder / "regions" / f"case{n}.nii.gz", np.stack([data == 1, data > 0], axis=-1))
    scores = score("regions", **options)
    assert scores[("case1", "liver")] == EXPECTED[("case1", "liver")]
    assert scores[("case1", "spleen")] == pytest.approx(2 * 80 / (96 + 96), abs=1e-6)
    assert score("predictions", name="files", labels="files", **options) == scores


def test_missing_case_raises_before_anything_is_scored(score, folder):
    (folder / "predictions/case1.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 cases: case1"):
        score()
    assert not (folder / "set").exists()


def test_other_grid_raises(score, folder):
    save(folder / "predictions/case0.nii.gz", label()[:-1])
    with pytest.raises(ValueError, match="Case 'case0': the prediction's shape"):
        score()


def test_misspelt_option_raises(score):
    with pytest.raises(ValueError, match="'nsd_tol'"):
        score(nsd_tol=1.0)


def test_file_that_lacks_a_class_raises(score, folder):
    (folder / "dataset.json").write_text(json.dumps({"labels": {"liver": 1}}))
    with pytest.raises(ValueError, match=r"has liver; it lacks spleen"):
        score(labels=str(folder / "dataset.json"))


def test_name_that_leads_elsewhere_raises(score):
    with pytest.raises(ValueError, match="no path"):
        score(name="../other")
