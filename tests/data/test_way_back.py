"""Volumes on the network's grid go back to the grid of the file as MONAI's `Invertd` brings them there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Invertd, LoadImaged, Orientationd, Spacingd, SpatialPadd

from scripts.data import way_back as module
from scripts.data.transforms import SafeSpacingd
from scripts.data.way_back import AlongAxes, StepByStep, WayBack, way_back

SPACING = (2.0, 3.1, 1.5)  # mm; two axes become coarser, one finer
AFFINE = np.array([[1.1, 0, 0, 5], [0, 1.7, 0, -7], [0, 0, 2.3, 11], [0, 0, 0, 1]])
TURN = np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # about the axis of the body
CROP = CropForegroundd("image", "image", select_fn=lambda x: x > 0)


def write_image(folder: Path, axes: str = "RAS", affine: np.ndarray[Any, Any] = AFFINE) -> Path:
    """An image with content in the middle, stored along the given axes."""
    volume = np.zeros((21, 17, 15), dtype=np.float32)
    volume[6:16, 5:12, 3:12] = 1
    image = nib.Nifti1Image(volume, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    path = folder / "image.nii.gz"
    nib.save(image.as_reoriented(turn), path)
    return path


def preprocessing(*more: Any) -> Compose:
    steps = [LoadImaged("image", ensure_channel_first=True), Orientationd("image", "RAS", labels=None)]
    return Compose([*steps, SafeSpacingd("image", SPACING), *more])


def back(way: WayBack, volume: torch.Tensor, box: Sequence[slice] | None = None) -> torch.Tensor:
    """All parts in one volume."""
    found = torch.zeros(way.shape)
    whole = tuple(slice(0, edge) for edge in volume.shape)
    for place, part in way.bring(volume, tuple(box or whole)):
        found[place] = part
    return found


def expected(volume: torch.Tensor, case: dict[Any, Any], steps: Compose) -> MetaTensor:
    given = {**case, "volume": MetaTensor(volume[None])}
    return Invertd("volume", steps, orig_keys="image", nearest_interp=False)(given)["volume"]


def noise(case: dict[Any, Any]) -> torch.Tensor:
    return torch.rand(case["image"].shape[1:], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SPL", "AIR"])
@pytest.mark.parametrize("more", [(), (CROP,), (SpatialPadd("image", (40, 9, 40)), CROP)], ids=["all", "crop", "pad"])
def test_along_axes_is_what_invertd_does(axes: str, more: tuple[Any, ...], tmp_path: Path) -> None:
    steps = preprocessing(*more)
    case: dict[Any, Any] = dict(steps({"image": str(write_image(tmp_path, axes))}))
    way = way_back(case["image"], steps, "image")
    assert isinstance(way, AlongAxes)
    volume = noise(case)
    wanted = expected(volume, case, steps)
    assert way.shape == wanted.shape[1:]
    torch.testing.assert_close(back(way, volume), wanted.as_tensor()[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("change", ["slanted", "unknown"])
def test_step_by_step_where_axes_are_not_known_to_lie_along_each_other(change: str, tmp_path: Path) -> None:
    path = write_image(tmp_path, affine=TURN @ AFFINE)
    steps = Compose([LoadImaged("image", ensure_channel_first=True), Spacingd("image", SPACING, diagonal=True)])
    steps = steps if change == "slanted" else preprocessing()
    case: dict[Any, Any] = dict(steps({"image": str(path)}))
    if change == "unknown":
        del case["image"].meta["original_affine"]
    way = way_back(case["image"], steps, "image")
    assert isinstance(way, StepByStep)
    wanted = expected(noise(case), case, steps)
    assert torch.equal(back(way, noise(case)), wanted.as_tensor()[0])
    labels = way.wrap(torch.ones(1, *way.shape, dtype=torch.uint8))
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.affine, wanted.affine)


def test_slanted_file_is_no_obstacle_where_the_grid_is_slanted_with_it(tmp_path: Path) -> None:
    steps = preprocessing()
    case: dict[Any, Any] = dict(steps({"image": str(write_image(tmp_path, affine=TURN @ AFFINE))}))
    way = way_back(case["image"], steps, "image")
    assert isinstance(way, AlongAxes)
    wanted = expected(noise(case), case, steps).as_tensor()[0]
    torch.testing.assert_close(back(way, noise(case)), wanted, atol=1e-5, rtol=0)


class TestAlongAxes:
    @pytest.fixture
    def case(self, tmp_path: Path) -> dict[Any, Any]:
        return dict(preprocessing()({"image": str(write_image(tmp_path, "LPS"))}))

    @pytest.fixture
    def way(self, case: dict[Any, Any]) -> WayBack:
        return way_back(case["image"], preprocessing(), "image")

    def test_of_a_box_it_gives_what_the_box_reaches_and_no_more(self, case: dict[Any, Any], way: WayBack) -> None:
        volume = torch.zeros_like(noise(case))
        box = (slice(3, 6), slice(2, 5), slice(4, 9))
        volume[4, 3, 5:8] = 1.0  # within the box by one
        (place, part), *others = way.bring(volume, box)
        assert not others
        assert torch.equal(back(way, volume, box), back(way, volume))
        assert part.numel() < 0.2 * np.prod(way.shape)
        assert [rows.stop - rows.start for rows in place] == list(part.shape)

    def test_parts_together_are_the_whole(
        self, case: dict[Any, Any], way: WayBack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = back(way, noise(case))
        monkeypatch.setattr(module, "SLAB", 700)
        assert len(list(way.bring(noise(case), tuple(slice(0, n) for n in noise(case).shape)))) > 5
        assert torch.equal(back(way, noise(case)), whole)

    def test_labels_have_the_grid_of_the_file_and_the_image_keeps_its_own(
        self, case: dict[Any, Any], way: WayBack, tmp_path: Path
    ) -> None:
        before = case["image"].affine.clone()
        labels = way.wrap(torch.zeros(1, *way.shape, dtype=torch.uint8))
        np.testing.assert_allclose(labels.affine, nib.load(tmp_path / "image.nii.gz").affine, atol=1e-6)
        assert labels.meta["filename_or_obj"].endswith("image.nii.gz")
        assert labels.applied_operations == []
        assert torch.equal(case["image"].affine, before)
        assert case["image"].applied_operations

    def test_hand_computed_row(self) -> None:
        """Voxels of 1 mm from a grid of 2 mm: halves between the centres, and the last value goes on to the end."""
        image = MetaTensor(torch.zeros(1, 3, 1, 1), affine=torch.diag(torch.tensor([2.0, 1, 1, 1])).double())
        image.meta["original_affine"] = torch.eye(4)
        image.applied_operations = [{"orig_size": (6, 1, 1)}]
        way = way_back(image, preprocessing(), "image")
        found = back(way, torch.tensor([0.0, 1.0, 3.0]).reshape(3, 1, 1))
        assert found.flatten().tolist() == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]

    def test_beyond_what_was_cropped_values_fade_to_nothing(self) -> None:
        affine = torch.diag(torch.tensor([2.0, 1, 1, 1])).double()
        affine[0, 3] = 4.0
        image = MetaTensor(torch.zeros(1, 2, 1, 1), affine=affine, meta={"original_affine": torch.eye(4)})
        image.applied_operations = [{"orig_size": (10, 1, 1)}]
        way = way_back(image, preprocessing(), "image")
        found = back(way, torch.tensor([1.0, 3.0]).reshape(2, 1, 1))
        assert found.flatten().tolist() == [0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 1.5, 0.0, 0.0]
