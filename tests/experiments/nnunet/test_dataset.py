from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.data.label_maps import LabelsToRegionsd, MapKnownLabelsd
from scripts.experiments.nnunet.dataset import region_masks, write_dataset

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


def save(path: Path, data: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(data.astype(np.uint8), AFFINE), path)
    return str(path)


@pytest.fixture
def cases(tmp_path: Path) -> list[dict[str, str]]:
    label = np.zeros((4, 5, 6))
    label[1], label[2] = 3, 7
    return [
        {
            "case": f"case{n}",
            "image": save(tmp_path / f"image{n}.nii.gz", label),
            "label": save(tmp_path / f"label{n}.nii.gz", label),
        }
        for n in range(3)
    ]


def write(tmp_path: Path, cases, **settings):
    given = {"class_names": ["liver", "spleen"], "softmax": True, "label_transforms": [], "modality": "CT", **settings}
    split = write_dataset(tmp_path / "nnunet", training=cases[:2], validation=cases[2:], **given)
    return split, json.loads((tmp_path / "nnunet/dataset.json").read_text())


def test_points_at_the_files_where_they_are(tmp_path, cases):
    split, content = write(tmp_path, cases)
    assert split == {"train": ["case0", "case1"], "val": ["case2"]}
    assert content["labels"] == {"background": 0, "liver": 1, "spleen": 2}
    assert content["channel_names"] == {"0": "CT"}
    assert content["numTraining"] == 3
    assert content["dataset"]["case2"] == {"images": [cases[2]["image"]], "label": cases[2]["label"]}
    assert [path.name for path in (tmp_path / "nnunet").iterdir()] == ["dataset.json"]


def test_labels_that_are_renumbered_are_written(tmp_path, cases):
    transform = MapKnownLabelsd("label", [3, 7], [2, 1])
    _, content = write(tmp_path, cases, label_transforms=[transform], modality="MR")
    written = nib.load(content["dataset"]["case0"]["label"])
    data = np.asarray(written.dataobj)
    assert (data[1] == 2).all()
    assert (data[2] == 1).all()
    np.testing.assert_allclose(written.affine, AFFINE)
    assert content["channel_names"] == {"0": "MRI"}


def test_more_than_255_classes_keep_their_numbers(tmp_path, cases):
    transform = MapKnownLabelsd("label", [3, 7], [255, 300])
    _, content = write(tmp_path, cases, label_transforms=[transform])
    written = nib.load(content["dataset"]["case0"]["label"])
    assert written.get_data_dtype() == np.uint16
    assert np.unique(written.dataobj).tolist() == [0, 255, 300]


def test_regions_are_lists_of_values(tmp_path, cases):
    transform = LabelsToRegionsd("label", [[3, 7], [7]])
    _, content = write(tmp_path, cases, softmax=False, label_transforms=[transform])
    assert content["labels"] == {"background": 0, "liver": [3, 7], "spleen": [7]}
    assert content["regions_class_order"] == [1, 2]
    assert content["dataset"]["case0"]["label"] == cases[0]["label"]


def test_regions_without_values_raise(tmp_path, cases):
    with pytest.raises(ValueError, match=r"expected one LabelsToRegionsd .* found \[\]"):
        write(tmp_path, cases, softmax=False)


def test_several_channels_in_one_file_raise(tmp_path, cases):
    cases[0]["image"] = save(tmp_path / "four.nii.gz", np.zeros((2, 2, 2, 4)))
    with pytest.raises(ValueError, match=r"holds several channels; nnU-Net reads one file a channel"):
        write(tmp_path, cases)


def test_probabilities_of_regions_become_channels_on_the_grid(tmp_path):
    like = Path(save(tmp_path / "like.nii.gz", np.zeros((2, 3, 4))))
    probabilities = np.zeros((2, 4, 3, 2), dtype=np.float32)  # regions, z, y, x
    probabilities[0], probabilities[1, 3, 2, 1] = 0.4, 0.9
    np.savez(tmp_path / "case.npz", probabilities=probabilities)
    region_masks(tmp_path / "case.npz", like, tmp_path / "masks.nii.gz")
    masks = nib.load(tmp_path / "masks.nii.gz")
    data = np.asarray(masks.dataobj)
    assert data.shape == (2, 3, 4, 2)
    assert np.argwhere(data).tolist() == [[1, 2, 3, 1]]
    np.testing.assert_allclose(masks.affine, AFFINE)
