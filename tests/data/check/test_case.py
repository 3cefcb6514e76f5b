"""One case, loaded and measured; whatever is wrong with it is words in its report."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImaged, Spacingd

from scripts.data.check.case import CaseCheck, CaseReport, Intensity
from scripts.data.label_maps import LabelsToRegionsd
from scripts.data.transforms import CheckCased

SHAPE = (10, 12, 8)
LPS = np.diag([-2.0, -2.0, 2.0, 1.0])
WINDOW = Intensity((-175.0, 250.0), crop=True)

Item = dict[str, Any]
Change = Callable[[np.ndarray], np.ndarray]


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = LPS) -> str:
    nib.save(nib.Nifti1Image(array, affine), path)
    return str(path)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """27 voxels of class 1 with 0 HU and 24 of class 2 with 100, in air: 960 in all."""
    label = np.zeros(SHAPE, np.uint8)
    label[2:5, 2:5, 2:5] = 1
    label[6:8, 2:5, 2:6] = 2
    return {"image": np.choose(label, (-1000, 0, 100)).astype(np.float32), "label": label}


@pytest.fixture
def item(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Item:
    files = {key: save(tmp_path / f"{key}.nii.gz", array) for key, array in arrays.items()}
    return {"case": "c", **files}


def measure(item: Item, **options: Any) -> CaseReport:
    softmax = options.get("softmax", True)
    load = [LoadImaged(["image", "label"], ensure_channel_first=True, allow_missing_keys=True)]
    checks = CheckCased(["image", "label"], class_names=["alpha", "beta"], softmax=softmax)
    arguments: dict[str, Any] = {
        "load": load,
        "check": checks.problems,
        "spacing": [4.0, 2.0, 2.0],
        "num_classes": 2,
        "softmax": True,
        "intensity": WINDOW,
    }
    return CaseCheck(**{**arguments, **options})(item, "training", 1)


class TestMeasures:
    def test_of_a_sound_case(self, item: Item) -> None:
        report = measure(item)
        assert report.problems == []
        assert (report.case, report.section, report.fold, report.channels) == ("c", "training", 1, 1)
        assert report.grid is not None
        assert report.grid == ((10, 12, 8), (2.0, 2.0, 2.0), "LPS")
        assert report.values == (-1000.0, 100.0)
        assert report.counts == (27, 24)
        assert report.oriented
        assert report.clipped == pytest.approx((960 - 51) / 960)
        assert report.labelled_clipped == 0
        assert report.nonzero == pytest.approx((960 - 27) / 960)
        assert report.span == pytest.approx((100 + 175) / 425)
        assert report.cached == 6 * 12 * 8 * 2 * 4  # voxels, image and label, float32

    @pytest.mark.parametrize("spacing", [[4.0, 2.0, 2.0], [3.0, 1.3, 5.0], [0.7, 2.5, 3.7]])
    def test_size_is_that_of_monais_resampling(self, item: Item, spacing: list[float]) -> None:
        loaded = LoadImaged(["image"], ensure_channel_first=True)({"image": item["image"]})
        assert measure(item, spacing=spacing).resampled == Spacingd("image", spacing)(loaded)["image"].shape[1:]

    def test_axes_are_turned(self, item: Item, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
        """Stored axes point up, to the right and to the back."""
        affine = np.array([[0, 1.0, 0, 0], [0, 0, -2.0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
        for key, array in arrays.items():
            save(tmp_path / f"{key}.nii.gz", array, affine)
        grid = measure(item).grid
        assert grid is not None
        assert grid == ((12, 8, 10), (1.0, 2.0, 3.0), "SRP")

    def test_clipping_of_the_labelled_voxels_is_counted_apart(self, item: Item) -> None:
        report = measure(item, intensity=Intensity((-175.0, 50.0)))
        assert report.labelled_clipped == pytest.approx(24 / 51)

    def test_values_that_fill_no_part_of_the_window(self, item: Item) -> None:
        assert measure(item, intensity=Intensity((200.0, 250.0))).span == 0

    def test_without_a_window_nothing_is_clipped(self, item: Item) -> None:
        report = measure(item, intensity=Intensity())
        assert (report.clipped, report.labelled_clipped, report.span) == (None, None, None)

    def test_crop_is_the_box_around_what_is_above_the_floor(self, item: Item) -> None:
        """Above 50 there is class 2 alone: in its box, of other place along the first axis, no voxel of class 1."""
        assert measure(item, intensity=Intensity((50.0, 250.0), crop=True)).cut_off == 27
        assert measure(item, intensity=Intensity((50.0, 250.0))).cut_off == 0
        assert measure(item).cut_off == 0
        assert measure(item, intensity=Intensity((900.0, 950.0), crop=True)).cut_off == 51

    def test_regions_are_counted_by_channel(self, item: Item) -> None:
        regions = LabelsToRegionsd("label", [[1, 2], [2]])
        load = [LoadImaged(["image", "label"], ensure_channel_first=True), regions]
        report = measure(item, load=load, softmax=False)
        assert (report.counts, report.problems) == ((51, 24), [])
        assert report.cached == 6 * 12 * 8 * 3 * 4
        assert measure(item, softmax=False).counts is None  # one channel does not tell regions

    def test_a_case_without_label(self, item: Item) -> None:
        del item["label"]
        report = measure(item)
        assert (report.counts, report.labelled_clipped, report.problems) == (None, None, [])

    def test_header_without_orientation(self, item: Item, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
        for key, array in arrays.items():
            save(tmp_path / f"{key}.nii.gz", array, None)
        assert not measure(item).oriented

    def test_check_and_report_can_be_sent_to_another_process(self, item: Item) -> None:
        check = CaseCheck([LoadImaged("image")], CheckCased("image").problems, [1.0] * 3, 2, True, WINDOW)
        assert pickle.loads(pickle.dumps(check)).spacing == [1.0, 1.0, 1.0]
        report = measure(item)
        assert pickle.loads(pickle.dumps(report)) == report


def put(array: np.ndarray, value: float) -> np.ndarray:
    array[0, 0, 0] = value
    return array


class TestProblems:
    @pytest.mark.parametrize(
        ("key", "change", "reason"),
        [
            ("image", lambda a: put(a, np.nan), "expected finite voxels, found 1 NaN"),
            ("image", lambda a: put(a, np.inf), "expected finite voxels, found 0 NaN and 1 infinite"),
            ("image", lambda a: np.stack([a, a], axis=-1), "expected 1 channel(s), found 2"),
            ("image", np.zeros_like, "expected a volume with content, found 0 in every voxel"),
            ("image", lambda a: a[..., :1], "expected 3 spatial dimensions of more than one voxel each"),
            ("label", lambda a: put(a, 3), "expected values from 0 to 2 (0 background, 1 alpha, 2 beta), found also 3"),
            ("label", lambda a: a / np.float32(2), "expected integers"),
            ("label", lambda a: a[:-1], "expected one shape, found 10 x 12 x 8 and 9 x 12 x 8"),
            ("label", lambda a: np.stack([a, a, a], axis=-1), "expected 1 channel(s), found 3"),
        ],
    )
    def test_of_content(self, item: Item, arrays: dict[str, np.ndarray], key: str, change: Change, reason: str) -> None:
        save(Path(item[key]), change(arrays[key]))
        problem = measure(item).problems[0]
        assert reason in problem
        assert item[key] in problem

    def test_of_a_shifted_affine(self, item: Item, arrays: dict[str, np.ndarray]) -> None:
        save(Path(item["label"]), arrays["label"], LPS + np.eye(4, k=3) * 5)
        (problem,) = measure(item).problems
        assert "put a corner 5 mm apart" in problem

    def test_of_an_affine_without_directions(self, item: Item, arrays: dict[str, np.ndarray]) -> None:
        for key in ("image", "label"):
            flat = nib.Nifti1Image(arrays[key], None)
            flat.header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
            nib.save(flat, item[key])
        problems = measure(item).problems
        assert [problem.split(":")[0] for problem in problems] == [f"{key} {item[key]}" for key in ("image", "label")]
        assert all("expected edges from 0.001 to 100 mm" in problem for problem in problems)

    @pytest.mark.parametrize("key", ["image", "label"])
    @pytest.mark.parametrize("length", [0, 60, -30])
    def test_of_a_file_that_cannot_be_read(self, item: Item, key: str, length: int) -> None:
        path = Path(item[key])
        path.write_bytes(path.read_bytes()[:length])
        (problem,) = measure(item).problems
        assert problem.startswith(f"{key} {path}: cannot be read (")
        assert len(problem.splitlines()) == 1

    def test_of_a_file_that_is_not_there(self, item: Item) -> None:
        Path(item["image"]).unlink()
        assert measure(item).problems == [f"image {item['image']}: there is no such file"]

    def test_of_both_volumes_are_reported(self, item: Item, arrays: dict[str, np.ndarray]) -> None:
        save(Path(item["image"]), put(arrays["image"], np.nan))
        save(Path(item["label"]), put(arrays["label"], 9))
        assert len(measure(item).problems) == 2

    def test_of_a_label_transform(self, item: Item, arrays: dict[str, np.ndarray]) -> None:
        save(Path(item["label"]), put(arrays["label"], 7))
        load = [LoadImaged(["image", "label"], ensure_channel_first=True), LabelsToRegionsd("label", [[1, 2], [2]])]
        (problem,) = measure(item, load=load, softmax=False).problems
        assert problem.startswith(f"cannot be loaded (ValueError: label {item['label']}: expected only the values 0, 1")

    def test_of_channels_on_different_grids(self, item: Item, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
        other = save(tmp_path / "t2.nii.gz", arrays["image"][:-1])
        (problem,) = measure({**item, "image": [item["image"], other]}).problems
        assert problem.startswith("cannot be loaded (")
