from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged, Spacingd
from numpy.typing import NDArray

from scripts.data.transforms import CheckCased, SafeSpacingd

SHAPE = (6, 7, 8)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])

Save = Callable[..., str]
Case = dict[Any, Any]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(name: str, array: NDArray[Any], affine: NDArray[Any] = AFFINE) -> str:
        path = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(array, affine), path)
        return str(path)

    return write


@pytest.fixture
def image() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture
def label() -> NDArray[np.uint8]:
    values = np.random.default_rng(1).integers(0, 3, size=SHAPE, dtype=np.uint8)
    values[0, 0, :3] = 0, 1, 2
    return values


@pytest.fixture
def case(save: Save, image: NDArray[Any], label: NDArray[Any]) -> Case:
    return {"image": save("case", image), "label": save("case_seg", label)}


def load(case: Mapping[str, Any]) -> Case:
    loader = LoadImaged(["image", "label"], ensure_channel_first=True, allow_missing_keys=True)
    return dict(loader(case))


def check(**arguments: Any) -> CheckCased:
    return CheckCased(["image", "label"], **{"class_names": ["liver", "spleen"], **arguments})


class TestSafeSpacingd:
    ENTRIES = {"image_path": "a.nii.gz", "label_text": ["x"], "image_caption": None, 7: "seven"}  # noqa: RUF012

    def test_monai_still_needs_the_workaround(self, case: Case) -> None:
        loaded = {**load(case), "image_path": "a.nii.gz"}
        with pytest.raises(AttributeError, match="update"):
            Spacingd("image", (2, 2, 2))(loaded)

    def test_equals_monai_and_returns_foreign_entries_untouched(self, case: Case) -> None:
        arguments: dict[str, Any] = {"pixdim": (2, 2, 2), "mode": ("bilinear", "nearest")}
        expected: Any = Spacingd(["image", "label"], **arguments)(load(case))
        found = SafeSpacingd(["image", "label"], **arguments)({**load(case), **self.ENTRIES})
        assert {name: found[name] for name in self.ENTRIES} == self.ENTRIES
        for key in ("image", "label"):
            assert found[key].shape == (1, 4, 4, 8)  # 5 mm and 6 mm, in steps of 2 mm
            assert torch.equal(found[key].as_tensor(), expected[key].as_tensor())
            assert torch.equal(found[key].affine, expected[key].affine)

    def test_metadata_dictionaries_are_still_updated(self, case: Case) -> None:
        found = SafeSpacingd("image", (2, 2, 2))({**load(case), "image_meta_dict": {}})
        assert torch.equal(found["image_meta_dict"]["affine"], found["image"].affine)

    def test_an_absent_key_is_left_out_if_allowed(self, case: Case) -> None:
        loaded = load({"image": case["image"]})
        found = SafeSpacingd(["image", "label"], (2, 2, 2), allow_missing_keys=True)(loaded)
        assert set(found) == {"image"}

    def test_invertd_finds_and_undoes_it(self, case: Case) -> None:
        forward = Compose([LoadImaged("image", ensure_channel_first=True), SafeSpacingd("image", (2.0, 2.0, 2.0))])
        done = forward({"image": case["image"], "image_path": "a.nii.gz"})
        assert done["image"].shape[1:] != SHAPE
        done["pred"] = MetaTensor(torch.ones_like(done["image"].as_tensor()), meta=dict(done["image"].meta))
        undone = Invertd("pred", forward, orig_keys="image", nearest_interp=True)(done)
        assert undone["pred"].shape[1:] == SHAPE
        assert np.allclose(undone["pred"].affine, AFFINE)
        assert undone["image_path"] == "a.nii.gz"


class TestCheckCased:
    def test_a_sound_case_passes_unchanged(self, case: Case) -> None:
        loaded = load(case)
        before = {key: loaded[key].clone() for key in loaded}
        after = check()(loaded)
        assert after.keys() == before.keys()
        assert all(torch.equal(after[key], before[key]) for key in before)

    def test_a_case_without_label_passes(self, case: Case) -> None:
        assert set(check()(load({"image": case["image"]}))) == {"image"}

    def test_a_missing_image_raises(self, case: Case) -> None:
        with pytest.raises(KeyError, match=r"expected the images \['image'\], found not \['image'\]"):
            check()(load({"label": case["label"]}))
        CheckCased(["image", "label"], allow_missing_keys=True)(load({"label": case["label"]}))

    @pytest.mark.parametrize(
        ("index", "message"),
        [
            (np.s_[:, :, 0], r"flat\.nii\.gz: expected 3 spatial dimensions .* found 2 \(shape 6 x 7\)"),
            (np.s_[:, :, :1], r"flat\.nii\.gz: expected 3 spatial dimensions .* \(shape 6 x 7 x 1\)"),
        ],
    )
    def test_a_slice_raises(self, save: Save, image: NDArray[Any], index: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            check()(load({"image": save("flat", image[index])}))

    def test_a_series_raises(self, save: Save, image: NDArray[Any]) -> None:
        path = save("series", np.stack([image] * 4, axis=-1))
        with pytest.raises(ValueError, match=r"series\.nii\.gz: expected 1 channel\(s\), found 4 .*num_channels"):
            check()(load({"image": path}))
        check(num_channels=4)(load({"image": path}))

    def test_four_spatial_dimensions_raise(self) -> None:
        with pytest.raises(ValueError, match=r"image 'image': .* found 4 \(shape 6 x 7 x 8 x 5\)"):
            check()({"image": torch.rand(1, *SHAPE, 5)})

    def test_no_voxels_raise(self) -> None:
        with pytest.raises(ValueError, match=r"expected voxels, found none \(shape 6 x 0 x 8\)"):
            check()({"image": torch.zeros(1, 6, 0, 8)})

    def test_one_value_throughout_raises(self, save: Save, image: NDArray[Any]) -> None:
        path = save("air", np.full_like(image, -1024))
        with pytest.raises(ValueError, match=r"air\.nii\.gz: .* content, found -1024 in every voxel"):
            check()(load({"image": path}))

    def test_voxels_that_are_not_finite_are_counted(self, save: Save, image: NDArray[Any]) -> None:
        image[0, 0, :2] = np.nan
        image[1, 1, :3] = np.inf, -np.inf, np.inf
        with pytest.raises(ValueError, match=r"holes\.nii\.gz: .* found 2 NaN and 3 infinite of 336"):
            check()(load({"image": save("holes", image)}))

    def test_a_label_with_nan_raises(self, case: Case, save: Save, label: NDArray[Any]) -> None:
        values = label.astype(np.float32)
        values[0, 0, 0] = np.nan
        with pytest.raises(ValueError, match=r"label .*nan\.nii\.gz: .* found 1 NaN"):
            check()(load({**case, "label": save("nan", values)}))

    def test_another_shape_names_both_files(self, case: Case, save: Save, label: NDArray[Any]) -> None:
        message = r"case\.nii\.gz and label .*short\.nii\.gz: expected one shape, found 6 x 7 x 8 and 6 x 7 x 7"
        with pytest.raises(ValueError, match=message):
            check()(load({**case, "label": save("short", label[:, :, 1:])}))

    def test_another_affine_names_both(self, case: Case, save: Save, label: NDArray[Any]) -> None:
        moved = AFFINE.copy()
        moved[:2, 3] = 3.0, 4.0  # a shift by 5 mm
        case["label"] = save("moved", label, moved)
        message = r"case\.nii\.gz and label .*moved\.nii\.gz: expected one affine, found .*5 mm apart"
        with pytest.raises(ValueError, match=message):
            check()(load(case))
        check(affine_tolerance=5.01)(load(case))

    def test_tolerance_is_a_distance_at_the_far_corner(self, case: Case, save: Save, label: NDArray[Any]) -> None:
        wider = AFFINE.copy()
        wider[2, 2] += 0.02  # times 7 steps: 0.14 mm
        case["label"] = save("wider", label, wider)
        with pytest.raises(ValueError, match=r"0\.14 mm apart \(affine_tolerance 0\.1 mm\)"):
            check()(load(case))
        check(affine_tolerance=0.15)(load(case))

    @pytest.mark.parametrize("value", [-1, 3, 7.0])
    def test_a_label_outside_the_table_raises(self, case: Case, save: Save, label: NDArray[Any], value: float) -> None:
        values = label.astype(np.float32)
        values[0, 0, 0] = value
        message = rf"strange\.nii\.gz: .* 0 to 2 \(0 background, 1 liver, 2 spleen\), found also {value:g};"
        with pytest.raises(ValueError, match=message):
            check()(load({**case, "label": save("strange", values)}))

    def test_many_strange_labels_are_cut_short(self, case: Case, save: Save, label: NDArray[Any]) -> None:
        values = label.copy()
        values[0, 0, :] = 0
        values[:2].flat[:12] = range(10, 22)
        with pytest.raises(ValueError, match=r"found also 10, .*, 19 and 2 more;"):
            check()(load({**case, "label": save("many", values)}))

    def test_labels_that_are_no_integers_raise(self, case: Case, save: Save, label: NDArray[Any]) -> None:
        values = label.astype(np.float32)
        values[0, 0, :2] = 0.5, 1.25
        with pytest.raises(ValueError, match=r"blurred\.nii\.gz: expected integers, found 0\.5, 1\.25;"):
            check()(load({**case, "label": save("blurred", values)}))

    def test_without_a_table_any_integer_passes(self, case: Case, save: Save, label: NDArray[Any]) -> None:
        CheckCased(["image", "label"])(load({**case, "label": save("any", label + 100)}))

    def test_num_classes_without_names(self, case: Case) -> None:
        CheckCased(["image", "label"], num_classes=3)(load(case))
        with pytest.raises(ValueError, match=r"expected values from 0 to 1, found also 2;"):
            CheckCased(["image", "label"], num_classes=2)(load(case))

    def test_regions_come_as_a_map_or_as_channels(self, case: Case, image: NDArray[Any]) -> None:
        regions = check(softmax=False)
        regions({"image": torch.as_tensor(image)[None], "label": torch.full((1, *SHAPE), 4)})
        regions({"image": torch.as_tensor(image)[None], "label": torch.ones(2, *SHAPE)})
        with pytest.raises(ValueError, match=r"expected values from 0 to 1, found also 4;"):
            regions({"image": torch.as_tensor(image)[None], "label": torch.full((2, *SHAPE), 4)})
        with pytest.raises(ValueError, match=r"expected 1 or 2 channel\(s\), found 3"):
            regions({"image": torch.as_tensor(image)[None], "label": torch.ones(3, *SHAPE)})

    def test_problems_tell_the_first_fault_of_each_volume_and_raise_none(
        self, image: NDArray[Any], label: NDArray[Any]
    ) -> None:
        image[0, 0, 0] = np.nan
        label[0, 0, 0] = 9
        case = {"image": torch.as_tensor(image)[None], "label": torch.as_tensor(label)[None]}
        of_image, of_label = check().problems(case)
        assert "found 1 NaN" in of_image
        assert "found also 9" in of_label
        assert check().problems({"image": torch.zeros(1, *SHAPE), "label": case["label"][:, 1:]})[1:] == [
            "image 'image' and label 'label': expected one shape, found 6 x 7 x 8 and 5 x 7 x 8; check that they "
            "belong together, or resample the label to the image's grid"
        ]
        with pytest.raises(ValueError, match="found 1 NaN"):
            check()(case)

    def test_a_sound_case_has_no_problems(self, case: Case) -> None:
        assert check().problems(load(case)) == []

    def test_disagreeing_counts_raise(self) -> None:
        with pytest.raises(ValueError, match=r"the 2 class_names, which makes 3, found 2"):
            check(num_classes=2)

    def test_the_message_survives_the_data_sets(self, case: Case, save: Save, label: NDArray[Any]) -> None:
        pipeline = Compose([LoadImaged(["image", "label"], ensure_channel_first=True), check()])
        bad = {**case, "label": save("strange", label + 5)}
        with pytest.raises(RuntimeError, match="CheckCased") as raised:
            CacheDataset([bad], pipeline, num_workers=1, progress=False)
        assert "strange.nii.gz" in str(raised.value.__cause__)
        with pytest.raises(RuntimeError, match=r"(?s)strange\.nii\.gz.*CheckCased"):
            list(DataLoader(Dataset([bad], pipeline), batch_size=1, num_workers=1))
