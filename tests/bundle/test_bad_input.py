"""What a user gets wrong, by the way that a user takes: each stops the run and says what is the matter."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from scripts.metrics import report

Run = Callable[..., None]
FailingRun = Callable[..., BaseException]
Volumes = tuple[np.ndarray, np.ndarray]
MR = {"text_format": "name", "backbone#network#feature_size": 12}


AS_A_COMMAND = pytest.param("as a command", marks=pytest.mark.slow)  # a process takes 10 s
CONFIGS = Path(__file__).resolve().parents[2] / "bipvl_bundle" / "configs"
both_ways = pytest.mark.parametrize("failing_run", ["in this process", AS_A_COMMAND], indirect=True)


@pytest.fixture
def training(trained: Any) -> dict[str, Any]:
    return dict(trained.options)


@pytest.fixture
def inference(trained: Any, tiny: dict[str, Any]) -> dict[str, Any]:
    return {**tiny, "dataset_dir": str(trained.data / "imagesTs"), "ckpt_path": str(trained.best)}


@pytest.fixture
def own_data(tmp_path: Path) -> str:
    """An overlay for a data set that is there."""
    (tmp_path / "own_data.yaml").write_text("prepare_data: null\nnum_folds: 2\n")
    return str(tmp_path / "own_data.yaml")


class TestDataSet:
    @both_ways
    def test_absent_folder(self, failing_run: FailingRun, tiny: dict[str, Any], tmp_path: Path) -> None:
        absent = str(tmp_path / "absent")
        options = {"dataset_dir": absent, "text_encoder": tiny["text_encoder"], **MR}
        message = rf"no data set folder '{absent}'.*set `dataset_dir`"
        failing_run(FileNotFoundError, message, "training", "train.yaml", "dataset_hippocampus.yaml", **options)

    def test_folder_of_something_else_is_not_overwritten(
        self, failing_run: FailingRun, training: dict[str, Any], tmp_path: Path
    ) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/notes.txt").write_text("mine")
        training["dataset_dir"] = str(tmp_path / "mine")
        failing_run(FileExistsError, "not a phantom data set", "training", "train.yaml", **training)
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]

    @both_ways
    def test_nothing_to_segment(self, failing_run: FailingRun, inference: dict[str, Any], tmp_path: Path) -> None:
        inference["dataset_dir"] = str(tmp_path / "absent.nii.gz")
        failing_run(FileNotFoundError, "There is nothing at", "inference", "inference.yaml", **inference)


def with_nan(image: np.ndarray, label: np.ndarray) -> Volumes:
    image[3, 4, 5] = np.nan
    return image, label


def with_foreign_label(image: np.ndarray, label: np.ndarray) -> Volumes:
    label[3, 4, 5] = 9
    return image, label


def with_short_label(image: np.ndarray, label: np.ndarray) -> Volumes:
    return image, label[:-1]


def in_2d(image: np.ndarray, label: np.ndarray) -> Volumes:
    return image[..., 0], label[..., 0]


def in_4d(image: np.ndarray, label: np.ndarray) -> Volumes:
    return np.stack([image, image], axis=-1), label


class TestCases:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (with_nan, r"case_2\.nii\.gz: expected finite voxels, found 1 NaN"),
            (with_foreign_label, r"case_2_label\.nii\.gz: expected values from 0 to 8 .*found also 9"),
            (
                with_short_label,
                r"case_2\.nii\.gz and label .*: expected one shape, found 20 x 20 x 20 and 19 x",
            ),
            (in_2d, r"case_2\.nii\.gz: expected 3 spatial dimensions"),
            (in_4d, r"case_2\.nii\.gz: expected 1 channel\(s\), found 2"),
        ],
    )
    def test_spoilt_case_is_named(
        self,
        failing_run: FailingRun,
        tiny: dict[str, Any],
        own_data: str,
        tmp_path: Path,
        spoil: Callable[[np.ndarray, np.ndarray], Volumes],
        message: str,
    ) -> None:
        rng = np.random.default_rng(0)
        entries = []
        for number in range(3):
            image = rng.normal(size=(20, 20, 20)).astype(np.float32)
            label = rng.integers(0, 9, size=(20, 20, 20)).astype(np.uint8)
            pair = spoil(image, label) if number == 2 else (image, label)
            names = [f"case_{number}.nii.gz", f"case_{number}_label.nii.gz"]
            for name, volume in zip(names, pair, strict=True):
                nib.save(nib.Nifti1Image(volume, np.diag([8.0, 8.0, 8.0, 1.0])), tmp_path / name)
            entries.append(dict(zip(("image", "label"), names, strict=True)))
        (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
        options = {**tiny, "dataset_dir": str(tmp_path)}
        failing_run(ValueError, message, "training", "train.yaml", own_data, **options)

    @both_ways
    def test_entry_without_its_file(
        self, failing_run: FailingRun, tiny: dict[str, Any], own_data: str, tmp_path: Path
    ) -> None:
        (tmp_path / "dataset.json").write_text(json.dumps({"training": [{"image": "a.nii", "label": "b.nii"}]}))
        message = r"2 of the files .* are absent.*case 'a'"
        options = {**tiny, "dataset_dir": str(tmp_path)}
        failing_run(FileNotFoundError, message, "training", "train.yaml", own_data, **options)

    @both_ways
    def test_nan_in_what_is_to_be_segmented(
        self, failing_run: FailingRun, inference: dict[str, Any], tmp_path: Path
    ) -> None:
        image = np.full((20, 20, 20), -1000, dtype=np.float32)
        image[0, 0, 0] = np.inf
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "spoilt.nii.gz")
        inference["dataset_dir"] = str(tmp_path / "spoilt.nii.gz")
        message = r"spoilt\.nii\.gz: expected finite voxels, found 0 NaN and 1 infinite"
        failing_run(ValueError, message, "inference", "inference.yaml", **inference)


class TestCheckpoint:
    @both_ways
    def test_absent(self, failing_run: FailingRun, inference: dict[str, Any], tmp_path: Path) -> None:
        inference["ckpt_path"] = str(tmp_path / "absent.pt")
        message = r"absent\.pt does not exist\. Train first"
        failing_run(FileNotFoundError, message, "inference", "inference.yaml", **inference)

    def test_absent_in_evaluation(self, failing_run: FailingRun, training: dict[str, Any]) -> None:
        files = ("train.yaml", "evaluate.yaml")
        failing_run(FileNotFoundError, r"model\.pt does not exist", "evaluating", *files, **training)

    @both_ways
    def test_garbage(self, failing_run: FailingRun, inference: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "garbage.pt").write_bytes(b"no checkpoint at all")
        inference["ckpt_path"] = str(tmp_path / "garbage.pt")
        message = r"garbage\.pt is not a checkpoint"
        failing_run(ValueError, message, "inference", "inference.yaml", **inference)

    def test_of_another_head(self, failing_run: FailingRun, inference: dict[str, Any]) -> None:
        message = r'trained with head = "words"; this run has "channels"\. Leave it out'
        failing_run(ValueError, message, "inference", "inference.yaml", **{**inference, "head": "channels"})

    @both_ways
    def test_of_other_classes_in_the_published_form(
        self, failing_run: FailingRun, inference: dict[str, Any], words: Path, tmp_path: Path
    ) -> None:
        published = {**inference, "head": "channels", "ckpt_path": str(tmp_path / "model.pt")}
        files = [str(CONFIGS / "inference.yaml")]
        parser = ConfigParser(ConfigParser.load_config_files(files))
        parser.update({"bundle_root": str(CONFIGS.parent), **published})
        torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
        table = yaml.safe_load(words.read_text())
        table["classes"][0]["name"] = "gallbladder"
        (tmp_path / "words.yaml").write_text(yaml.safe_dump(table))
        published["concepts_file"] = str(tmp_path / "words.yaml")
        message = r"trained for 8 classes, \['spleen', .*words\.yaml has 8, \['gallbladder', "
        failing_run(ValueError, message, "inference", "inference.yaml", **published)

    def test_of_another_network(self, failing_run: FailingRun, inference: dict[str, Any]) -> None:
        inference["backbone#network#depths"] = [1, 1, 1, 2]
        message = r"trained with backbone#network#depths = \[1, 1, 1, 1\]; this run has \[1, 1, 1, 2\]"
        failing_run(ValueError, message, "inference", "inference.yaml", **inference)
        inference["not_as_trained"] = ["backbone"]
        message = r"model\.pt does not fit the network of this configuration: .*Missing key"
        failing_run(ValueError, message, "inference", "inference.yaml", **inference)

    def test_edited_words_are_no_error_but_a_warning(
        self, run: Run, inference: dict[str, Any], words: Path, tmp_path: Path
    ) -> None:
        table = yaml.safe_load(words.read_text())
        table["classes"][0]["shape"] = "Other words."
        (tmp_path / "words.yaml").write_text(yaml.safe_dump(table))
        inference["concepts_file"] = str(tmp_path / "words.yaml")
        with pytest.warns(UserWarning, match=r"words\.yaml are not those that the checkpoint was trained with"):
            run("inference", "inference.yaml", **inference)


class TestKeys:
    @pytest.mark.parametrize(
        ("files", "run_id"),
        [
            (("train.yaml",), "training"),
            (("train.yaml", "evaluate.yaml"), "evaluating"),
            (("inference.yaml",), "inference"),
        ],
    )
    def test_unknown_on_the_command_line(self, failing_run: FailingRun, files: tuple[str, ...], run_id: str) -> None:
        message = r"unknown key 'roi_sise' \(nearest: 'roi_size'\)"
        failing_run(ValueError, message, run_id, *files, roi_sise=[32, 32, 32])

    @both_ways
    def test_unknown_in_an_overlay(self, failing_run: FailingRun, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text("learning_rates: 1.0e-2\n")
        message = r"unknown key 'learning_rates' \(nearest: 'learning_rate'\)"
        failing_run(ValueError, message, "training", "train.yaml", str(tmp_path / "mine.yaml"))

    def test_unknown_argument_of_a_component(self, failing_run: FailingRun, training: dict[str, Any]) -> None:
        training["backbone#network#feature_sise"] = 24
        failing_run(TypeError, "feature_sise", "training", "train.yaml", **training)


def fill_disk(patch: pytest.MonkeyPatch, when: str) -> None:
    """From now on the disk is full: in the midst of writing a checkpoint, or when it is to get its name."""
    full = OSError(errno.ENOSPC, "No space left on device")
    if when == "writing":

        def save(content: Any, path: Path) -> None:
            Path(path).write_bytes(b"half a check")
            raise full

        patch.setattr(torch, "save", save)
    else:

        def replace(source: Path, target: Path) -> None:
            raise full

        patch.setattr(os, "replace", replace)


class TestOutput:
    @pytest.mark.parametrize("key", ["ckpt_dir", "output_dir"])
    def test_folder_that_cannot_be_made_is_reported_before_training(
        self, failing_run: FailingRun, training: dict[str, Any], tmp_path: Path, key: str
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        training |= {key: str(tmp_path / "file"), "dataset_dir": str(tmp_path / "not_made_yet")}
        message = rf"Cannot write to the output folder '{tmp_path}/file'.*{key}"
        failing_run(OSError, message, "training", "train.yaml", **training)
        assert not (tmp_path / "not_made_yet").exists()

    def test_checkpoint_folder_that_vanishes(
        self,
        failing_run: FailingRun,
        training: dict[str, Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(report, "check_output_folder", lambda folder: None)
        (tmp_path / "file").write_text("in the way")
        training |= {"ckpt_dir": str(tmp_path / "file")}
        message = r"file' cannot hold a run: .*set `ckpt_dir`"
        failing_run(OSError, message, "training", "train.yaml", **training)

    @pytest.mark.parametrize(
        ("when", "epochs", "first"),
        [
            ("writing", 4, "last"),  # the first epoch of four is not validated: the state comes first
            ("naming", 1, "model"),  # the only epoch is validated: the best model comes first
        ],
    )
    def test_full_disk_leaves_the_old_checkpoints(
        self,
        failing_run: FailingRun,
        training: dict[str, Any],
        trained: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        when: str,
        epochs: int,
        first: str,
    ) -> None:
        shutil.copytree(trained.folder / "models", tmp_path / "models")
        before = {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()}
        fill_disk(monkeypatch, when)
        message = rf"{first}\.pt could not be written: .*No space left on device.* Free space"
        failing_run(OSError, message, "training", "train.yaml", **{**training, "max_epochs": epochs, "overwrite": True})
        assert {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()} == before

    def test_predictions_folder_that_cannot_be_made(
        self, failing_run: FailingRun, inference: dict[str, Any], tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        inference["predictions_dir"] = str(tmp_path / "file")
        message = rf"Cannot write to the output folder '{tmp_path}/file'.*predictions_dir"
        failing_run(OSError, message, "inference", "inference.yaml", **inference)

    def test_full_disk_stops_the_predictions(
        self, failing_run: FailingRun, inference: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def save(image: Any, path: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(nib, "save", save)
        failing_run(
            OSError,
            r"Cannot write '.*_seg\.nii\.gz': No space left on device",
            "inference",
            "inference.yaml",
            **inference,
        )

    def test_metrics_folder_that_cannot_be_made(
        self, failing_run: FailingRun, training: dict[str, Any], trained: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        training |= {"metrics_dir": str(tmp_path / "file"), "ckpt_dir": str(trained.folder / "models")}
        message = rf"Cannot write to the output folder '{tmp_path}/file'"
        failing_run(OSError, message, "evaluating", "train.yaml", "evaluate.yaml", **training)


class TestResume:
    @pytest.fixture
    def resuming(self, training: dict[str, Any], trained: Any) -> dict[str, Any]:
        return {**training, "resume": True, "ckpt_dir": str(trained.folder / "models")}

    @both_ways
    def test_with_another_length(self, failing_run: FailingRun, resuming: dict[str, Any]) -> None:
        resuming["max_epochs"] = 8
        message = r"run of 4 epochs; this one has 8\. .*set `max_epochs` to 4"
        failing_run(ValueError, message, "training", "train.yaml", **resuming)

    def test_with_another_network(self, failing_run: FailingRun, resuming: dict[str, Any]) -> None:
        resuming["backbone#network#depths"] = [1, 1, 1, 2]
        message = r"last\.pt belongs to a run with backbone#network#depths#3 = 1, now 2\. A run is resumed with the"
        failing_run(ValueError, message, "training", "train.yaml", **resuming)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("learning_rate", 1e-3),
            ("weight_decay", 0.1),
            ("batch_size", 8),
            ("spacing", [8.0, 8.0, 4.0]),
            ("intensity#0#a_min", -100),
            ("loss_def#use_alignment", False),
            ("flip_prob", [0.5, 0.0, 0.0]),
        ],
    )
    def test_with_another_option(self, failing_run: FailingRun, resuming: dict[str, Any], key: str, value: Any) -> None:
        message = rf"last\.pt belongs to a run with {key}.* now .*begin a new run from its model"
        failing_run(ValueError, message, "training", "train.yaml", **{**resuming, key: value})

    def test_from_a_model_instead_of_a_state(
        self, failing_run: FailingRun, training: dict[str, Any], trained: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "models").mkdir()
        shutil.copy(trained.best, tmp_path / "models/last.pt")
        message = r"not the state of such a run: it lacks \['best'"
        failing_run(ValueError, message, "training", "train.yaml", **training, resume=True)


class TestROI:
    @both_ways
    def test_that_cannot_be_divided(self, failing_run: FailingRun, training: dict[str, Any]) -> None:
        training["roi_size"] = [64, 48, 32]
        message = r"multiples of 32; found \(64, 48, 32\)\. Set `roi_size` to \[64, 32, 32\] or \[64, 64, 32\]"
        failing_run(ValueError, message, "training", "train.yaml", **training)

    def test_of_a_single_cell_at_the_last_stage(self, failing_run: FailingRun, training: dict[str, Any]) -> None:
        training["roi_size"] = [32, 32, 32]
        failing_run(ValueError, r"Set at least one edge of `roi_size` to 64", "training", "train.yaml", **training)
