"""Real scans through the pipelines of their overlays; skipped where the data is not at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from scripts.data.datalist import training_items, validation_items

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CT = DATA / "abdominal_ct_sample"
HU_WINDOW = (-175, 250)

Run = Callable[..., None]


def needs(folder: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not folder.is_dir(), reason=f"there is no ../shared/data/{folder.name}")


def parsed(bundle_root: Path, *files: str, **options: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(bundle_root / "configs" / file) for file in files])
    parser.update({"bundle_root": str(bundle_root), **options})
    return parser


@needs(CT)
class TestAbdominalCT:
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, bundle_root: Path) -> dict[str, Any]:
        parser = parsed(bundle_root, "train.yaml", "dataset_amos22.yaml")
        transforms = Compose(parser.get_parsed_content("preprocessing_transforms"))
        return transforms({"image": str(CT / "image.nii.gz"), "label": str(CT / "label.nii.gz")})

    def test_comes_out_in_ras_at_the_spacing_of_table_4(self, case: dict[str, Any]) -> None:
        for volume in (case["image"], case["label"]):
            assert nib.aff2axcodes(volume.affine.numpy()) == ("R", "A", "S")
            assert volume.pixdim.tolist() == pytest.approx([1.5, 1.5, 2.0])

    def test_shape_is_that_of_the_body(self, case: dict[str, Any]) -> None:
        """122 x 101 x 112 voxels of 3 mm are 243 x 201 x 167 of 1.5 x 1.5 x 2 mm; the crop takes air away."""
        shape = case["image"].shape
        assert case["label"].shape == shape
        assert shape[0] == 1
        whole = [round((n - 1) * 3 / new) + 1 for n, new in zip((122, 101, 112), (1.5, 1.5, 2.0), strict=True)]
        assert all(0.6 * n < m <= n + 1 for m, n in zip(shape[1:], whole, strict=True))

    def test_intensities_are_the_window_scaled_to_one(self, case: dict[str, Any]) -> None:
        image = case["image"]
        assert float(image.min()) == 0.0
        assert float(image.max()) == 1.0
        hounsfield = np.asarray(nib.load(CT / "image.nii.gz").dataobj)
        liver = np.asarray(nib.load(CT / "label.nii.gz").dataobj) == 6
        low, high = HU_WINDOW
        expected = np.clip((hounsfield[liver].mean() - low) / (high - low), 0, 1)
        assert float(image[case["label"] == 6].mean()) == pytest.approx(expected, abs=0.02)

    def test_labels_keep_their_organs_and_their_volume(self, case: dict[str, Any]) -> None:
        before = np.asarray(nib.load(CT / "label.nii.gz").dataobj)
        assert set(case["label"].unique().tolist()) == set(np.unique(before))
        volumes = float((case["label"] == 6).sum()) * 1.5 * 1.5 * 2.0, (before == 6).sum() * 27.0
        assert volumes[0] == pytest.approx(volumes[1], rel=0.03)

    def test_inference_ends_on_the_grid_of_the_scan(self, run: Run, tmp_path: Path) -> None:
        """With a network that reads sixteen levels of grey: so that what is where can be told from the scan.

        The logits 2 x c / 15 - (c / 15)^2 are largest for the level c / 15 nearest to the intensity x.
        """
        levels = torch.arange(16) / 15
        convolution = {"weight": (2 * levels).reshape(16, 1, 1, 1, 1), "bias": -(levels**2)}
        torch.save({"model": convolution}, tmp_path / "model.pt")
        network = "{_target_: torch.nn.Conv3d, in_channels: 1, out_channels: 16, kernel_size: 1}"
        (tmp_path / "levels.yaml").write_text(f"network_def: {network}\n")
        found = self.segment(run, tmp_path, tmp_path / "levels.yaml", roi_size=[64, 64, 32])
        hounsfield = np.asarray(nib.load(CT / "image.nii.gz").dataobj)
        low, high = HU_WINDOW
        level = 15 * (np.clip(hounsfield, low, high) - low) / (high - low)
        assert np.mean(np.abs(found - level) <= 1) > 0.75  # resampling to 2 mm slices smooths the noise
        assert np.corrcoef(found.ravel(), level.ravel())[0, 1] > 0.95
        for axis in range(3):
            assert np.corrcoef(np.flip(found, axis).ravel(), level.ravel())[0, 1] < 0.9

    @pytest.mark.slow
    def test_network_of_sixteen_outputs_segments_the_scan(
        self, run: Run, bundle_root: Path, tiny_bert: Path, tmp_path: Path
    ) -> None:
        """With a network that has not learnt a thing: what is asked for is the way there and back."""
        options: dict[str, Any] = {
            "text_encoder": str(tiny_bert),
            "text_stage_layers": [1, 1, 1, 1],
            "text_format": "name",
            "backbone#network#feature_size": 12,
            "backbone#network#window_size": 4,
            "backbone#network#depths": [1, 1, 1, 1],
            "roi_size": [96, 96, 64],
        }
        torch.manual_seed(0)
        parser = parsed(bundle_root, "inference.yaml", "dataset_amos22.yaml", **options)
        network = parser.get_parsed_content("network_def")
        torch.save({"model": network.state_dict()}, tmp_path / "model.pt")
        found = self.segment(run, tmp_path, **options)
        assert len(np.unique(found)) > 1

    def segment(self, run: Run, folder: Path, *overlays: Path, **options: Any) -> np.ndarray:
        """What inference.yaml writes for the scan, its grid, type and values checked."""
        source = CT / "image.nii.gz"
        paths = {"dataset_dir": str(source), "ckpt_path": str(folder / "model.pt")}
        machine = {"sw_overlap": 0.0, "device": "cpu", "amp": False, "num_workers": 0}
        run("inference", "inference.yaml", "dataset_amos22.yaml", *overlays, **options, **machine, **paths)
        scan, result = nib.load(source), nib.load(folder / "runs/predictions/image_seg.nii.gz")
        assert result.shape == scan.shape
        assert result.get_data_dtype() == np.uint8
        assert nib.aff2axcodes(result.affine) == nib.aff2axcodes(scan.affine)
        np.testing.assert_allclose(result.affine, scan.affine, atol=1e-4)
        found = np.asarray(result.dataobj)
        assert found.max() <= 15
        return found


@pytest.mark.parametrize(
    ("dataset", "folder", "sizes"),
    [
        pytest.param("hippocampus", p := DATA / "Task04_Hippocampus", (67, 67, 66), marks=needs(p)),
        pytest.param("brain_structures", p := DATA / "brain_structures", (5, 5, 4), marks=needs(p)),
    ],
)
class TestDecathlonFolders:
    def test_every_case_passes_the_check(
        self, bundle_root: Path, dataset: str, folder: Path, sizes: tuple[int, ...]
    ) -> None:
        parser = parsed(bundle_root, "train.yaml", f"dataset_{dataset}.yaml", dataset_dir=str(folder))
        load_and_check = Compose([parser.get_parsed_content(f"{name}_transforms#0") for name in ("load", "base")])
        items = parser.get_parsed_content("train#dataset#data") + parser.get_parsed_content("validate#dataset#data")
        assert len(items) == sum(sizes)
        highest = max(int(load_and_check(item)["label"].max()) for item in items)
        assert highest == len(parser.get_parsed_content("class_names"))

    def test_folds_part_the_cases(self, bundle_root: Path, dataset: str, folder: Path, sizes: tuple[int, ...]) -> None:
        held_out = [{item["case"] for item in validation_items(folder, fold, 3)} for fold in range(3)]
        assert tuple(map(len, held_out)) == sizes
        assert len(set.union(*held_out)) == sum(sizes)
        for fold, cases in enumerate(held_out):
            assert not cases & {item["case"] for item in training_items(folder, fold, 3)}

    def test_one_case_goes_through_the_whole_pipeline(
        self, bundle_root: Path, dataset: str, folder: Path, sizes: tuple[int, ...]
    ) -> None:
        parser = parsed(bundle_root, "train.yaml", f"dataset_{dataset}.yaml", dataset_dir=str(folder))
        (patch,) = parser.get_parsed_content("train#preprocessing")(training_items(folder, 0, 3)[0])
        assert patch["image"].shape == patch["label"].shape == (1, *parser["roi_size"])
        assert patch["image"].isfinite().all()
        assert set(patch["label"].unique().tolist()) <= set(range(len(parser.get_parsed_content("class_names")) + 1))
