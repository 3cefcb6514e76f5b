"""From logits to labels on the grid of the file: against the plain way, and in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Invertd, LoadImaged, Orientationd, SaveImaged
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scripts.data.logits import PROBABILITIES, ToLabelsd
from scripts.data.native_labels import NativeLabelsd, most_likely
from scripts.data.transforms import SafeSpacingd
from scripts.data.way_back import StepByStep

SHAPE = (19, 17, 15)
Case = dict[Any, Any]


class Prepared:
    """An image on the network's grid, and what brought it there."""

    def __init__(self, folder: Path, shape: Sequence[int] = SHAPE, spacing: Sequence[float] = (2.2, 3.1, 1.5)) -> None:
        volume = np.zeros(shape, dtype=np.float32)
        volume[3:-2, 2:-4, 1:-5] = 1
        self.path = folder / "p7.nii.gz"
        nib.save(nib.Nifti1Image(volume, np.diag([-1.0, 1.0, 2.0, 1.0])), self.path)
        self.steps = Compose(
            [
                LoadImaged("image", ensure_channel_first=True),
                Orientationd("image", "RAS", labels=None),
                SafeSpacingd("image", spacing),
                CropForegroundd("image", "image", allow_smaller=True),
            ]
        )
        self.case: Case = dict(self.steps({"image": str(self.path)}))

    def logits(self, channels: int, seed: int = 0) -> MetaTensor:
        """Noise with some large regions in it."""
        generator = torch.Generator().manual_seed(seed)
        grid = self.case["image"].shape[1:]
        coarse = torch.randn(1, channels, 3, 3, 3, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=grid, mode="trilinear")[0]
        return MetaTensor(4 * smooth + torch.randn(channels, *grid, generator=generator))

    def labels(self, logits: torch.Tensor, **arguments: Any) -> MetaTensor:
        return NativeLabelsd("pred", self.steps, **arguments)({**self.case, "pred": logits})["pred"]

    def inverted(self, volume: torch.Tensor, nearest: bool) -> torch.Tensor:
        given = {**self.case, "pred": MetaTensor(volume)}
        return Invertd("pred", self.steps, orig_keys="image", nearest_interp=nearest)(given)["pred"].as_tensor()


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return Prepared(tmp_path)


class TestExclusiveClasses:
    @pytest.mark.parametrize(("channels", "seed"), [(2, 0), (5, 1), (12, 2)])
    def test_equal_softmax_invertd_and_argmax_of_all_channels_at_once(
        self, prepared: Prepared, channels: int, seed: int
    ) -> None:
        logits = prepared.logits(channels, seed)
        probabilities = logits.as_tensor().softmax(0)
        probabilities[0] = 1 - probabilities[0]  # so that what was cropped, where Invertd puts 0, is background
        everywhere = prepared.inverted(probabilities, nearest=False)
        everywhere[0] = 1 - everywhere[0]
        found = prepared.labels(logits)
        assert len(found.unique()) == channels
        assert torch.equal(found.as_tensor()[0].long(), everywhere.argmax(0))

    def test_the_box_of_a_class_changes_no_label(self, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        logits = prepared.logits(6)
        found = prepared.labels(logits)
        way = StepByStep(prepared.case["image"], prepared.steps, "image")  # has no boxes
        assert torch.equal(most_likely(logits.as_tensor(), way), found.as_tensor())

    def test_a_class_may_win_between_voxels_where_it_wins_at_none(self, tmp_path: Path) -> None:
        """Neighbours of 0.55, 0.45, 0 and 0, 0.45, 0.55 have 0.275, 0.45, 0.275 half-way."""
        prepared = Prepared(tmp_path, (9, 9, 9), (2.0, 1.0, 2.0))
        grid = prepared.case["image"].shape[1:]
        probabilities = torch.full((3, *grid), 1e-9)
        half = grid[0] // 2
        probabilities[0, :half] = probabilities[2, half:] = 0.55
        probabilities[1] = 0.45
        assert 1 not in ToLabelsd("pred")({"pred": probabilities.log()})["pred"].unique()
        assert set(prepared.labels(probabilities.log()).unique().tolist()) == {0, 1, 2}

    def test_grid_and_file_are_those_of_the_image(self, prepared: Prepared) -> None:
        found = prepared.labels(prepared.logits(4))
        assert found.shape == (1, *SHAPE)
        np.testing.assert_allclose(found.affine, nib.load(prepared.path).affine)
        assert found.meta["filename_or_obj"] == str(prepared.path)

    def test_an_edge_is_finer_than_the_voxels_of_the_network(self, tmp_path: Path) -> None:
        prepared = Prepared(tmp_path, (40, 40, 40), (4.0, 4.0, 8.0))
        image = prepared.case["image"]
        corners = np.stack(np.meshgrid(*map(np.arange, image.shape[1:]), indexing="ij"), -1)
        places = corners @ image.affine[:3, :3].numpy().T + image.affine[:3, 3].numpy()
        logits = torch.from_numpy(12 - np.linalg.norm(places - [-19, 18, 36], axis=-1)).float()  # a ball of 12 mm
        logits = torch.stack([torch.zeros_like(logits), logits])
        at = np.stack(np.meshgrid(-np.arange(40.0), np.arange(40.0), 2 * np.arange(40.0), indexing="ij"), -1)
        ball = torch.from_numpy(np.linalg.norm(at - [-19, 18, 36], axis=-1) < 12)
        wrong = {mode: (prepared.labels(logits, mode=mode)[0].bool() != ball).sum() for mode in ("linear", "nearest")}
        assert wrong["linear"] < 0.5 * wrong["nearest"]

    def test_background_alone_gives_background(self, prepared: Prepared) -> None:
        logits = prepared.logits(3)
        logits[0] = 50
        assert not prepared.labels(logits).any()

    def test_logits_are_left_alone_and_may_be_of_half_precision(self, prepared: Prepared) -> None:
        logits = prepared.logits(3).half()
        before = logits.clone()
        found = prepared.labels(logits)
        assert torch.equal(logits, before)
        assert torch.equal(found.as_tensor(), prepared.labels(logits.float()).as_tensor())

    def test_more_classes_than_a_byte_counts(self, prepared: Prepared, tmp_path: Path) -> None:
        logits = torch.zeros(301, *prepared.case["image"].shape[1:])
        logits[300, 2:5, 1:4, 2:6] = 9
        for mode in ("linear", "nearest"):
            found = prepared.labels(logits, mode=mode)
            assert set(found.unique().tolist()) == {0, 300}
            folder = tmp_path / mode
            SaveImaged("pred", output_dir=folder, output_ext=".nii.gz", output_dtype=None, print_log=False)(
                {"pred": found}
            )
            (path,) = folder.rglob("*.nii.gz")
            saved = nib.load(path)
            assert set(np.unique(np.asarray(saved.dataobj))) == {0, 300}


class TestRegions:
    def test_equal_sigmoid_invertd_and_threshold(self, prepared: Prepared) -> None:
        logits = prepared.logits(3)
        found = prepared.labels(logits, softmax=False)
        expected = prepared.inverted(logits.as_tensor().sigmoid(), nearest=False) > 0.5
        assert found.dtype == torch.uint8
        assert found.shape == (3, *SHAPE)
        assert torch.equal(found.as_tensor().bool(), expected)
        assert (expected.sum(0) > 1).any(), "they overlap"

    def test_that_are_nowhere_stay_empty(self, prepared: Prepared) -> None:
        logits = prepared.logits(2)
        logits[1] = -3
        found = prepared.labels(logits, softmax=False)
        assert found[0].any()
        assert not found[1].any()


class TestNearest:
    @pytest.mark.parametrize("softmax", [True, False])
    def test_resamples_the_labels(self, prepared: Prepared, softmax: bool) -> None:
        logits = prepared.logits(4)
        labels = ToLabelsd("pred", softmax=softmax)({"pred": logits})["pred"]
        found = prepared.labels(logits, mode="nearest", softmax=softmax)
        assert found.dtype == torch.uint8
        assert torch.equal(found.as_tensor().float(), prepared.inverted(labels, nearest=True))

    def test_another_mode_raises(self, prepared: Prepared) -> None:
        with pytest.raises(ValueError, match="expected mode linear or nearest, found 'cubic'"):
            NativeLabelsd("pred", prepared.steps, mode="cubic")


@pytest.mark.parametrize("mode", ["linear", "nearest"])
class TestWhatIsNoLogits:
    def test_samples_of_probabilities_pass_into_the_grid_of_the_file(self, prepared: Prepared, mode: str) -> None:
        sample = MetaTensor(prepared.logits(3).softmax(0), meta={PROBABILITIES: True})
        found = prepared.labels(sample, mode=mode)
        assert torch.equal(found.as_tensor(), prepared.inverted(sample.as_tensor(), nearest=True))

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_numbers_that_are_none_raise_with_the_file(self, prepared: Prepared, mode: str, value: float) -> None:
        logits = MetaTensor(prepared.logits(3), meta={"filename_or_obj": str(prepared.path)})
        logits[1, 2, 2, 2] = value
        with pytest.raises(ValueError, match=r"p7.nii.gz: expected finite logits .* found 1 .*channels 1"):
            prepared.labels(logits, mode=mode)


def test_logits_in_another_grid_raise(prepared: Prepared) -> None:
    with pytest.raises(ValueError, match=r"p7.nii.gz: expected logits in the grid of the image, .*, found \(4, 4, 4\)"):
        prepared.labels(torch.zeros(3, 4, 4, 4))


class PeakMemory(TorchDispatchMode):
    """The most bytes at a time in tensors that were made within."""

    def __init__(self, given: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.known = {StorageWeakRef(tensor.untyped_storage()).cdata for tensor in given}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                reference = StorageWeakRef(tensor.untyped_storage())
                if reference.cdata not in self.known:
                    self.alive[reference.cdata] = (reference, tensor.untyped_storage().nbytes())
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return output


def test_memory_does_not_grow_with_the_number_of_classes(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, (48, 48, 40), (2.0, 2.0, 4.0))
    peaks = {}
    for channels in (3, 60):
        logits = prepared.logits(channels).as_tensor()
        with PeakMemory([logits, prepared.case["image"]]) as memory:
            labels = prepared.labels(logits)
        peaks[channels] = memory.peak / labels.numel()
        assert len(labels.unique()) > 0.9 * channels
    assert peaks[60] < 1.1 * peaks[3]
    assert peaks[60] < 25, "bytes a voxel of the file: a few volumes of 4 bytes"
