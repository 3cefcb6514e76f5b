"""The embedded data set: what it shows, how it is stored, and what happens when its making goes wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from monai.transforms import Compose, LoadImaged, Orientationd, ScaleIntensityRanged, Spacingd
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from scripts.data.datalist import load_datalist
from scripts.data.phantom import dataset as phantom
from scripts.data.phantom.anatomy import CLASS_NAMES
from scripts.data.phantom.dataset import ensure_phantom, make_phantom
from scripts.data.phantom.scan import AXIS_CODES, PhantomCase, draw_case

LABELS = {name: number for number, name in enumerate(CLASS_NAMES, start=1)}
CASES = len(AXIS_CODES) + 2
BUNDLE = Path(__file__).parents[3] / "bipvl_bundle"


def arrays(case: PhantomCase) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    return np.asarray(case.image.dataobj), np.asarray(case.label.dataobj)


def world_centroid(case: PhantomCase, name: str) -> NDArray[np.float64]:
    """Centre of a structure in NIfTI world coordinates, mm: x to the right, y to the front, z to the head."""
    voxels = np.argwhere(np.asarray(case.label.dataobj) == LABELS[name])
    return np.asarray(nib.affines.apply_affine(case.label.affine, voxels.mean(axis=0)))


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [draw_case(7, 0, index) for index in range(CASES)]


class TestCase:
    def test_same_seed_gives_same_case_and_another_seed_section_or_index_gives_another(self) -> None:
        image, label = arrays(draw_case(3, 0, 1))
        again, label_again = arrays(draw_case(3, 0, 1))
        assert np.array_equal(image, again)
        assert np.array_equal(label, label_again)
        for other in ((4, 0, 1), (3, 1, 1), (3, 0, 7)):
            assert not np.array_equal(image, np.asarray(draw_case(*other).image.dataobj))

    def test_is_stored_as_int16_and_uint8_on_one_grid(self, cases: list[PhantomCase]) -> None:
        for case in cases:
            assert case.image.get_data_dtype() == np.int16
            assert case.label.get_data_dtype() == np.uint8
            assert case.image.shape == case.label.shape
            assert np.array_equal(case.image.affine, case.label.affine)
            assert np.allclose(case.image.get_qform(), case.image.get_sform(), atol=1e-3)

    def test_every_class_has_volume_at_the_training_spacing(self, cases: list[PhantomCase]) -> None:
        for case in cases:
            label = np.asarray(case.label.dataobj)
            voxel = abs(np.linalg.det(case.label.affine))
            counts = np.bincount(label.ravel(), minlength=len(CLASS_NAMES) + 1) * voxel / (4.0 * 4.0 * 5.0)
            assert counts.size == len(CLASS_NAMES) + 1
            assert counts[1:].min() >= 50, dict(zip(CLASS_NAMES, counts[1:], strict=True))

    def test_volume_fits_the_training_grid(self, cases: list[PhantomCase]) -> None:
        for case in cases:
            canonical = nib.as_closest_canonical(case.image)
            extent = np.array(canonical.shape) * canonical.header.get_zooms()
            assert np.all(extent <= (256, 192, 240))
            assert np.all(extent >= (230, 170, 215))

    def test_spacing_is_anisotropic_and_varies(self, cases: list[PhantomCase]) -> None:
        zooms = np.array([nib.as_closest_canonical(case.image).header.get_zooms() for case in cases])
        assert np.all((zooms[:, :2] >= 2.4) & (zooms[:, :2] <= 3.2))
        assert np.all((zooms[:, 2] >= 4.0) & (zooms[:, 2] <= 6.0))
        assert len(np.unique(zooms[:, 0])) == len(cases)

    def test_orientations_differ_and_some_permute_the_axes(self, cases: list[PhantomCase]) -> None:
        found = ["".join(nib.aff2axcodes(case.image.affine)) for case in cases]
        assert found[: len(AXIS_CODES)] == list(AXIS_CODES)
        assert "RAS" in found
        assert any(code[2] not in "SI" for code in found)

    def test_sides_are_the_patients_own_in_every_orientation(self, cases: list[PhantomCase]) -> None:
        for case in cases:
            at = {name: world_centroid(case, name) for name in CLASS_NAMES}
            assert at["right kidney"][0] > at["vertebra"][0] + 20 > at["left kidney"][0] + 40
            assert at["liver"][0] > at["vertebra"][0] > at["spleen"][0]
            assert at["stomach"][1] > at["aorta"][1] > at["vertebra"][1]
            assert at["liver"][2] > at["right kidney"][2] > at["urinary bladder"][2]

    def test_structures_touch(self, cases: list[PhantomCase]) -> None:
        pairs = (
            ("liver", "right kidney"),
            ("spleen", "left kidney"),
            ("spleen", "stomach"),
            ("aorta", "vertebra"),
        )
        for case in cases:
            label = np.asarray(case.label.dataobj)
            for first, second in pairs:
                contact = binary_dilation(label == LABELS[first]) & (label == LABELS[second])
                assert contact.sum() >= 5, (first, second)

    def test_hounsfield_units_are_those_of_ct(self, cases: list[PhantomCase]) -> None:
        expected = {
            "spleen": (100, 140),
            "right kidney": (120, 180),
            "left kidney": (120, 180),
            "liver": (85, 125),
            "aorta": (180, 245),
            "vertebra": (170, 300),
            "urinary bladder": (0, 25),
        }
        for case in cases:
            image, label = arrays(case)
            canonical = np.asarray(nib.as_closest_canonical(case.image).dataobj)
            assert np.abs(canonical[:6, :6].mean() + 1000) < 10  # the air beside the body
            assert image.min() >= -1024
            for name, (low, high) in expected.items():
                assert low < np.median(image[label == LABELS[name]]) < high, name
            inside = binary_erosion(label == LABELS["liver"], iterations=2)
            assert 8 < image[inside].std() < 25

    def test_kidneys_are_alike_but_for_their_place(self, cases: list[PhantomCase]) -> None:
        medians, volumes = [], []
        for case in cases:
            image, label = arrays(case)
            masks = [label == LABELS[f"{side} kidney"] for side in ("right", "left")]
            medians.append([np.median(image[mask]) for mask in masks])
            volumes.append([mask.sum() for mask in masks])
        assert abs(np.subtract(*np.transpose(medians)).mean()) < 4.0
        ratio = np.divide(*np.transpose(volumes))
        assert 0.8 < np.exp(np.log(ratio).mean()) < 1.25

    def test_kidneys_have_a_darker_centre(self, cases: list[PhantomCase]) -> None:
        for case in cases:
            image, label = arrays(case)
            mask = label == LABELS["left kidney"]
            centre = binary_erosion(mask, iterations=3)
            assert centre.any()
            assert image[centre].mean() < np.median(image[mask]) - 10


class TestDataSet:
    def test_is_a_decathlon_data_set_in_the_order_of_the_concept_table(self, tmp_path: Path) -> None:
        root = make_phantom(tmp_path / "phantom", num_training=3, num_test=1, progress=False)
        content = json.loads((root / "dataset.json").read_text())
        assert {"name", "description", "labels", "modality", "training", "test"} <= set(content)
        assert content["labels"] == {"0": "background", **{str(n): name for name, n in LABELS.items()}}
        table = yaml.safe_load((BUNDLE / "configs" / "concepts" / "phantom.yaml").read_text())
        assert [entry["name"] for entry in table["classes"]] == list(CLASS_NAMES)
        assert len(load_datalist(root)) == 3
        item = load_datalist(root, "test")[0]
        assert nib.Nifti1Image.from_filename(item["image"]).get_data_dtype() == np.int16
        label = nib.Nifti1Image.from_filename(item["label"])
        assert set(np.unique(np.asarray(label.dataobj))) == set(range(9))
        assert not list(root.rglob(".*"))

    def test_a_case_does_not_depend_on_how_many_are_made(self, tmp_path: Path) -> None:
        few = make_phantom(tmp_path / "few", num_training=1, num_test=1, progress=False)
        many = make_phantom(tmp_path / "many", num_training=2, num_test=1, progress=False)
        for path in few.rglob("*.nii.gz"):
            assert path.read_bytes() == (many / path.relative_to(few)).read_bytes()

    def test_goes_through_the_pipeline_of_a_real_ct(self, tmp_path: Path) -> None:
        root = make_phantom(tmp_path / "phantom", num_training=len(AXIS_CODES), num_test=0, progress=False)
        keys = ("image", "label")
        pipeline = Compose(
            [
                LoadImaged(keys, ensure_channel_first=True),
                Orientationd(keys, axcodes="RAS", labels=None),
                Spacingd(keys, pixdim=(4.0, 4.0, 5.0), mode=("bilinear", "nearest")),
                ScaleIntensityRanged("image", a_min=-175, a_max=250, b_min=0, b_max=1, clip=True),
            ]
        )
        for item in load_datalist(root):
            output = pipeline(item)
            image, label = np.asarray(output["image"])[0], np.asarray(output["label"])[0]
            assert np.all(np.array(image.shape) >= (58, 43, 43))
            assert np.all(np.array(image.shape) <= (65, 49, 49))
            assert (image.min(), image.max()) == (0.0, 1.0)
            assert np.bincount(label.astype(int).ravel(), minlength=9)[1:].min() >= 50
            right = np.argwhere(label == LABELS["right kidney"]).mean(axis=0)
            left = np.argwhere(label == LABELS["left kidney"]).mean(axis=0)
            assert right[0] > left[0] + 10

    def test_ensure_makes_once_and_then_leaves_alone(self, tmp_path: Path) -> None:
        folder = tmp_path / "nested" / "phantom"
        assert ensure_phantom(folder, num_training=1, num_test=0, progress=False) == str(folder)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert ensure_phantom(str(folder), num_training=1, num_test=0, progress=False) == str(folder)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    def test_progress_bar_is_shown_on_demand(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make_phantom(tmp_path / "a", num_training=1, num_test=0, progress=False)
        assert capsys.readouterr().err == ""
        make_phantom(tmp_path / "b", num_training=1, num_test=0)
        assert "Making the phantom data set" in capsys.readouterr().err

    @pytest.mark.parametrize("wrong", [{"num_training": 0}, {"num_test": -1}, {"seed": -1}])
    def test_impossible_recipe_raises(self, tmp_path: Path, wrong: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
            ensure_phantom(tmp_path / "phantom", **wrong)  # type: ignore[arg-type]


class TestInterruption:
    @pytest.fixture
    def interrupted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder whose making was stopped in the middle of writing the second case's image."""
        real_save, calls = nib.save, []

        def save_then_stop(image: nib.Nifti1Image, path: Path) -> None:
            calls.append(path)
            if len(calls) == 3:
                Path(path).write_bytes(b"half a file")
                raise KeyboardInterrupt
            real_save(image, path)

        folder = tmp_path / "phantom"
        with monkeypatch.context() as patch:
            patch.setattr(phantom.nib, "save", save_then_stop)
            with pytest.raises(KeyboardInterrupt):
                make_phantom(folder, num_training=2, num_test=1, progress=False)
        return folder

    def test_half_made_folder_is_no_data_set(self, interrupted: Path) -> None:
        assert not (interrupted / "dataset.json").exists()
        assert len(list(interrupted.rglob("*.nii.gz"))) == 2
        with pytest.raises(FileNotFoundError, match=r"has no dataset\.json"):
            load_datalist(interrupted)

    def test_next_run_finishes_it_and_keeps_what_is_there(self, interrupted: Path, tmp_path: Path) -> None:
        kept = {path: path.stat().st_mtime_ns for path in interrupted.rglob("*.nii.gz")}
        ensure_phantom(interrupted, num_training=2, num_test=1, progress=False)
        whole = make_phantom(tmp_path / "whole", num_training=2, num_test=1, progress=False)
        files = sorted(path.relative_to(whole) for path in whole.rglob("*"))
        assert sorted(path.relative_to(interrupted) for path in interrupted.rglob("*")) == files
        assert all((interrupted / f).read_bytes() == (whole / f).read_bytes() for f in files if f.suffix)
        assert {path: path.stat().st_mtime_ns for path in kept} == kept

    def test_half_made_folder_of_another_recipe_is_left_alone(self, interrupted: Path) -> None:
        before = sorted(interrupted.rglob("*"))
        with pytest.raises(FileExistsError, match="another recipe"):
            ensure_phantom(interrupted, num_training=2, num_test=1, seed=1, progress=False)
        assert sorted(interrupted.rglob("*")) == before


class TestOccupiedOrUnwritableFolder:
    def test_phantom_of_another_recipe_raises(self, tmp_path: Path) -> None:
        folder = make_phantom(tmp_path / "phantom", num_training=1, num_test=0, progress=False)
        with pytest.raises(FileExistsError, match=r"another recipe.*Nothing was changed"):
            ensure_phantom(folder, num_training=2, num_test=0, progress=False)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("dataset.json", '{"name": "mine", "training": []}'),
            ("dataset.json", "{"),
            ("thesis.txt", "words"),
        ],
    )
    def test_folder_of_something_else_raises_and_stays(self, tmp_path: Path, name: str, content: str) -> None:
        (tmp_path / name).write_text(content)
        with pytest.raises(FileExistsError, match=r"not a phantom data set.*overlay of your data set"):
            ensure_phantom(tmp_path, num_training=1, num_test=0, progress=False)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_text() == content

    def test_place_that_cannot_be_a_folder_raises(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"cannot be written to '.*file/phantom'.*set `dataset_dir`"):
            ensure_phantom(tmp_path / "file" / "phantom", num_training=1, num_test=0, progress=False)

    def test_file_in_the_folders_place_raises(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="cannot be written to"):
            ensure_phantom(tmp_path / "file", num_training=1, num_test=0, progress=False)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_folder_raises(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(OSError, match="cannot be written to"):
            ensure_phantom(tmp_path / "phantom", num_training=1, num_test=0, progress=False)

    def test_full_disk_raises_and_leaves_no_partial_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(image: nib.Nifti1Image, path: Path) -> None:
            Path(path).write_bytes(b"half a file")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(phantom.nib, "save", full)
        with pytest.raises(OSError, match=r"No space left on device.*free some space"):
            ensure_phantom(tmp_path / "phantom", num_training=1, num_test=0, progress=False)
        assert not list(tmp_path.rglob("*.nii.gz"))

    def test_another_process_that_finished_first_is_no_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def finished_elsewhere(root: Path, *_: object) -> None:
            os.replace(root / "dataset.json.incomplete", root / "dataset.json")

        monkeypatch.setattr(phantom, "_write_cases", finished_elsewhere)
        folder = str(tmp_path / "phantom")
        assert ensure_phantom(folder, num_training=1, num_test=0, progress=False) == folder
