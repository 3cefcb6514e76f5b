"""Values unlike those of the training are told, and nothing is said of the test cases of the same data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import NormalizeIntensityd, ScaleIntensityRanged

from scripts.data.datalist import load_datalist
from scripts.data.intensities import LEVELS, describe_values, has_window, levels_of, looks_like
from scripts.data.loading import load_volume
from scripts.data.phantom.dataset import make_phantom
from scripts.data.transforms import CheckCased

SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    return make_phantom(folder / "data", num_training=4, num_test=3, progress=False)


@pytest.fixture(scope="module")
def known(phantom: Path) -> dict[str, Any]:
    return describe_values(load_datalist(phantom))[0]


@pytest.fixture(scope="module")
def image(phantom: Path) -> np.ndarray:
    return np.asarray(load_volume(load_datalist(phantom, "test")[0]["image"])[0])


def mr_like(image: np.ndarray) -> np.ndarray:
    """No negative value, tissue of some hundreds, fat brighter than muscle."""
    return np.where(image < -500, 0, np.where(image < -20, 450, 260 + 0.3 * image)).astype(np.float32)


def test_fingerprint_tells_foreground_and_levels(phantom: Path, known: dict[str, Any]) -> None:
    items = load_datalist(phantom)
    inside = np.concatenate(
        [np.asarray(load_volume(i["image"]))[np.asarray(load_volume(i["label"])) > 0] for i in items]
    )
    assert known["foreground"]["mean"] == pytest.approx(inside.mean(), rel=0.02)
    assert known["foreground"]["sd"] == pytest.approx(inside.std(), rel=0.02)
    assert known["foreground"]["percentiles"][2] == pytest.approx(np.median(inside), rel=0.05)
    assert known["image"]["low"][1] < -900
    assert known == json.loads(json.dumps(known))


def test_says_nothing_of_cases_of_the_same_data_set(phantom: Path, known: dict[str, Any]) -> None:
    for item in load_datalist(phantom, "test"):
        assert looks_like(levels_of(np.asarray(load_volume(item["image"]))), known, window=True) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image + 1024, r"shifted by about \+1024, as of CT stored without its intercept"),
        (lambda image: (image + 1024).clip(0), r"shifted by about \+1024"),
        (lambda image: image - 1024, r"shifted by about -1024"),
        (lambda image: (image.clip(-175, 250) + 175) / 425, r"from 0 to 1, .* scaled already, to 0\.\.1"),
        (lambda image: np.round((image.clip(-175, 250) + 175) / 425 * 255), "like a picture with grey values"),
        (lambda image: mr_like(image), "looks like MR"),
        (lambda image: (image - image.mean()) / image.std(), "scaled already, to other units"),
        (lambda image: image * 10, "most of what is bright is about"),
    ],
)
def test_says_what_other_values_look_like(
    image: np.ndarray, known: dict[str, Any], change: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(looks_like(levels_of(change(image)), known, window=True))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not here")
def test_real_ct_of_any_part_of_the_body_passes_as_ct(known: dict[str, Any]) -> None:
    image = np.asarray(load_volume(SHARED / "abdominal_ct_sample/image.nii.gz"))[0]
    for part in (image, image[:, :, 80:], image[:, :, :40], image[10:110, 10:90]):
        assert looks_like(levels_of(part), known, window=True) == ""
        assert "+1024" in looks_like(levels_of(part + 1024), known, window=True)
        assert "-1024" in looks_like(levels_of(part - 1024), known, window=True)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not here")
@pytest.mark.parametrize(("data_set", "training"), [("Task04_Hippocampus", 20), ("brain_structures", 7)])
def test_mr_of_the_same_data_set_passes_whatever_its_scale(data_set: str, training: int) -> None:
    items = load_datalist(SHARED / data_set)
    known = describe_values(items[:training])[0]
    for item in items[training : training + 60]:
        image = np.asarray(load_volume(item["image"]))
        for scaled in (image, image * 0.001, image * 30):
            assert looks_like(levels_of(scaled), known, window=False) == ""
    assert "as CT in HU" in looks_like(levels_of(image - 1000), known, window=False)


def test_brain_with_its_surroundings_is_told(image: np.ndarray) -> None:
    brain = np.where(image > -500, image + 1200, 0)
    levels = levels_of(brain)
    known = {"image": {name: [value, value] for name, value in levels.items()}}
    assert looks_like(levels, known, window=False) == ""
    assert "looks not cut away" in looks_like(levels_of(brain + 20), known, window=False)
    whole = {"image": {**known["image"], "zero": [0.0, 0.01]}}
    assert "looks cut away" in looks_like({**levels, "zero": 0.6}, whole, window=False)


def test_file_that_cannot_be_read_is_left_to_the_loader(tmp_path: Path, phantom: Path) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"no")
    items = [{"image": str(tmp_path / "bad.nii.gz"), "case": "bad"}]
    assert describe_values(items) == []
    assert describe_values([*items, load_datalist(phantom)[0]])[0]["image"]["low"][0] < -900
    assert describe_values([]) == []


def test_window_is_seen() -> None:
    assert has_window([ScaleIntensityRanged("image", -175, 250, 0, 1)])
    assert not has_window([NormalizeIntensityd("image")])


def test_check_leaves_the_levels_of_each_channel(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(8, 9, 7, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    case = CheckCased(["image", "label"], num_channels=2)({"image": load_volume(tmp_path / "a.nii.gz")})
    assert json.loads(case["image"].meta[LEVELS]) == [levels_of(values[..., n]) for n in range(2)]
