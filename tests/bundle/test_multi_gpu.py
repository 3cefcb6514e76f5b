"""Two processes on the CPU, started by torchrun as a user starts them, against one process with twice the batch."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from ignite.engine import Engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.configuration.check import check_config
from scripts.data.phantom.dataset import ensure_phantom
from scripts.messages.phrases import root_cause
from scripts.training.engines import LossTerms

Options = dict[str, Any]
CONFIGS = Path(__file__).resolve().parents[2] / "bipvl_bundle" / "configs"

# Nothing random in a step, so that one process and two compute the same. Seven cases: four to train on, and
# three to validate on, which two processes cannot share evenly.
CALM: Options = {
    "prepare_data#num_training": 7,
    "prepare_data#num_test": 1,
    "prepare_data#progress": False,
    "num_folds": 2,
    "fold": 1,
    "max_epochs": 2,
    "subset_prob": 0.0,  # two processes would ask for other classes than one
    "leave_out_prob": 0.0,
    "alternatives_prob": 0.0,
    "val_interval": 2,
    "network_def#text_encoder#dropout": 0.0,
    "loss_def#alignment#noise": 0.0,
    # AdamW's steps hardly depend on the size of a gradient: they would hide a wrong one, and magnify rounding.
    "optimizer#_target_": "torch.optim.SGD",
    "learning_rate": 0.05,
    "train#dataloader#shuffle": False,
    "train#random_transforms": [
        {"_target_": "SpatialPadd", "keys": ["image", "label"], "spatial_size": "@roi_size"},
        {"_target_": "CenterSpatialCropd", "keys": ["image", "label"], "roi_size": "@roi_size"},
    ],
}


class Launched(NamedTuple):
    """What two processes left behind."""

    folder: Path
    logs: list[str]  # of each process, both streams

    @property
    def files(self) -> set[str]:
        folders = (self.folder / "models", self.folder / "runs")
        paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {path.name.split(".17")[0].split(".tfevents")[0] for path in paths}


def torchrun(run_id: str, *files: str, folder: Path, bundle_root: Path, options: Options, status: int = 0) -> Launched:
    """`torchrun --nproc_per_node=2 -m monai.bundle run RUN_ID`, in a foreign folder."""
    outputs = {"output_dir": str(folder / "runs"), "ckpt_dir": str(folder / "models")}
    overlay = folder / f"{run_id}.yaml"
    overlay.write_text(yaml.safe_dump({"bundle_root": str(bundle_root), **outputs, **options}, sort_keys=False))
    configs = [*(str(CONFIGS / name) for name in files), str(overlay)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    command += ["--nproc_per_node=2", "--redirects=3", f"--log-dir={folder / 'logs'}"]
    command += ["-m", "monai.bundle", "run", run_id, "--config_file", str(configs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    paths = [sorted((folder / "logs").rglob(f"{rank}/std*.log")) for rank in (0, 1)]
    logs = ["".join(path.read_text() for path in of_rank) for of_rank in paths]
    assert done.returncode == status, "\n".join([done.stderr, *logs])
    return Launched(folder, logs)


def load(folder: Path, name: str = "last.pt") -> dict[str, Any]:
    return torch.load(folder / "models" / name, weights_only=True)


def scalars(folder: Path) -> dict[str, list[float]]:
    board = EventAccumulator(str(folder / "runs/tensorboard"))
    board.Reload()
    return {name: [event.value for event in board.Scalars(name)] for name in board.Tags()["scalars"]}


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.fixture(scope="module")
def options(tiny: Options, tmp_path_factory: pytest.TempPathFactory) -> Options:
    """One data set for all, which the two processes are the first to need."""
    return {**tiny, **CALM, "dataset_dir": str(tmp_path_factory.mktemp("data") / "phantom")}


@pytest.fixture(scope="module")
def pair(bundle_root: Path, options: Options, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """A training in two processes, each with one case a step."""
    folder = tmp_path_factory.mktemp("pair")
    overlays = ("train.yaml", "multi_gpu_train.yaml")
    mine = {**options, "batch_size": 1, "train#sampler#shuffle": False}
    return torchrun("training", *overlays, folder=folder, bundle_root=bundle_root, options=mine)


@pytest.fixture(scope="module")
def single(
    pair: Launched, bundle_run: Callable[..., None], options: Options, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of the same training in one process, with two cases a step."""
    folder = tmp_path_factory.mktemp("single")
    bundle_run("training", "train.yaml", folder=folder, **{**options, "batch_size": 2})
    return folder


@pytest.mark.slow
def test_several_data_sets_are_learnt_and_scored_together(bundle_root: Path, options: Options, tmp_path: Path) -> None:
    """Each process asks its case for classes of its own, and has another data set's in the same step."""
    part = {key: options[key] for key in ("dataset_dir", "concepts_file", "num_folds", "fold", "spacing")}
    data_sets = {
        "first": {**part, "prepare_data": None, "labels": ["spleen", "liver"]},
        "second": {**part, "prepare_data": None, "labels": ["aorta"], "part": [0, 2]},
    }
    files = ("train.yaml", "several_data_sets.yaml", "multi_gpu_train.yaml")
    kept = ("text_encoder", "roi_size", "backbone#network#depths")
    mine = {**{key: options[key] for key in kept}, "data_sets": data_sets, "max_epochs": 1, "val_interval": 1}
    ensure_phantom(options["dataset_dir"], num_training=7, num_test=1, progress=False)
    done = torchrun("training", *files, folder=tmp_path, bundle_root=bundle_root, options=mine)
    assert {"mean_dice_first", "mean_dice_second", "dice_aorta"} <= set(scalars(done.folder))
    assert (tmp_path / "models/model.pt").is_file()


@pytest.mark.slow
class TestTraining:
    def test_weights_are_those_of_one_process_with_twice_the_batch(self, pair: Launched, single: Path) -> None:
        found, expected = load(pair.folder), load(single)
        assert found["trainer"] == expected["trainer"] == {"epoch": 2, "iteration": 4, "max_epochs": 2}
        assert_close(found["model"], expected["model"])
        assert (expected["loss"]["log_variance"].abs() > 1e-4).all()
        assert_close(found["loss"], expected["loss"])

    def test_loss_and_metrics_are_those_of_all_cases(self, pair: Launched, single: Path) -> None:
        found, expected = scalars(pair.folder), scalars(single)
        assert set(found) == set(expected)
        for name in set(expected) - {"train_loss_iteration"}:  # that is each process's own
            assert found[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
        assert {"train_alignment", "val_mean_dice", "dice_liver"} <= set(expected)

    def test_checkpoint_is_that_of_a_network_on_its_own(self, pair: Launched) -> None:
        names = [name for name in load(pair.folder, "model.pt") if name.startswith("module.")]
        assert not names

    def test_one_process_writes_and_talks(self, pair: Launched) -> None:
        assert {"last.pt", "model.pt", "plan.json", "events.out", "report.html"} <= pair.files
        assert len(list((pair.folder / "runs/tensorboard").iterdir())) == 2  # of training and of validation
        talk = ["Epoch 1/2: loss", "Epoch [1/2]", "Best val_mean_dice so far"]  # log, progress bar, validation
        assert [words in pair.logs[0] for words in talk] == [True] * 3
        assert [words in pair.logs[1] for words in talk] == [False] * 3

    def test_data_set_is_made_once_and_whole(self, pair: Launched, options: Options) -> None:
        images = sorted(path.name for path in (Path(options["dataset_dir"]) / "imagesTr").iterdir())
        assert images == [f"phantom_train_{number:03d}.nii.gz" for number in range(1, 8)]


@pytest.mark.slow
def test_scores_are_those_of_one_process(
    pair: Launched, bundle_root: Path, bundle_run: Callable[..., None], options: Options, tmp_path: Path
) -> None:
    """Of the model that two processes have trained, by both."""
    mine = {**options, "ckpt_path": str(pair.folder / "models/model.pt")}
    folders = [tmp_path / "pair", tmp_path / "single"]
    for folder in folders:
        folder.mkdir()
    overlays = ("train.yaml", "evaluate.yaml", "multi_gpu_evaluate.yaml")
    launched = torchrun("evaluating", *overlays, folder=folders[0], bundle_root=bundle_root, options=mine)
    bundle_run("evaluating", "train.yaml", "evaluate.yaml", folder=folders[1], **mine)

    scores = {"metrics_per_case.csv", "metrics_summary.csv"}
    assert scores | {"report.html", "cases.json"} <= launched.files
    for name in scores:
        found, expected = ((folder / "runs/metrics" / name).read_text() for folder in folders)
        assert found == expected
    for words in ("HD95 mm", "Loaded the model", "evaluating:"):
        assert [words in log for log in launched.logs] == [True, False], words


@pytest.fixture
def images(options: Options, pair: Launched, tmp_path: Path) -> Path:
    """Seven volumes, and two files between them that are none."""
    folder = tmp_path / "images"
    shutil.copytree(Path(options["dataset_dir"]) / "imagesTr", folder)
    for name in ("phantom_train_003a", "phantom_train_005a"):
        (folder / f"{name}.nii.gz").write_bytes(b"no volume")
    return folder


@pytest.mark.slow
def test_each_volume_is_segmented_once_with_the_files_of_one_process(
    pair: Launched, bundle_root: Path, bundle_run: Callable[..., None], options: Options, images: Path, tmp_path: Path
) -> None:
    kept = ("text_encoder", "concepts_file", "roi_size", "spacing", "backbone#network#depths")
    mine = {**{key: options[key] for key in kept}, "dataset_dir": str(images), "device": "cpu"}
    mine |= {"ckpt_path": str(pair.folder / "models/model.pt")}
    folders = [tmp_path / "pair", tmp_path / "single"]
    for folder in folders:
        folder.mkdir()
    pair_options = {key: value for key, value in mine.items() if key != "device"}
    places = {"folder": folders[0], "bundle_root": bundle_root}
    files = ("inference.yaml", "multi_gpu_inference.yaml")
    launched = torchrun("run", *files, **places, options=pair_options, status=1)
    with pytest.raises(RuntimeError) as stopped:
        bundle_run("run", "inference.yaml", folder=folders[1], **mine)
    assert "2 of 9 cases failed" in str(root_cause(stopped.value))

    found, expected = (_contents(folder / "runs/predictions") for folder in folders)
    assert set(found) == set(expected)
    assert {"failures.csv", "labels.csv", "volumes.csv"} <= set(found)
    assert len(found) == 7 + 3
    assert [name for name in expected if found[name] != expected[name]] == []
    assert "2 of 9 cases failed" in launched.logs[0]
    assert "cases failed" not in launched.logs[1]
    assert sum(log.count("Traceback") for log in launched.logs[1:]) == 0

    (images / "phantom_train_003a.nii.gz").unlink()
    (images / "phantom_train_005a.nii.gz").unlink()
    (folders[0] / "runs/predictions/phantom_train_002_seg.nii.gz").unlink()
    torchrun("run", *files, **places, options=pair_options)
    again = _contents(folders[0] / "runs/predictions")
    assert "failures.csv" not in again
    assert again["phantom_train_002_seg.nii.gz"] == expected["phantom_train_002_seg.nii.gz"]


def _contents(folder: Path) -> dict[str, Any]:
    """Of masks the voxels and the header, since a compressed file tells when it was made."""
    paths = sorted(folder.iterdir())
    volumes = {path.name: gzip.decompress(path.read_bytes()) for path in paths if path.suffix == ".gz"}
    return volumes | {path.name: path.read_text() for path in paths if path.suffix == ".csv"}


@pytest.mark.slow
def test_run_of_one_process_is_resumed_by_two(
    pair: Launched,
    single: Path,
    bundle_root: Path,
    bundle_run: Callable[..., None],
    options: Options,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add = LossTerms.add

    def cut_power(self: LossTerms, engine: Engine) -> None:
        if engine.state.epoch == 2:
            raise SystemError("power cut")
        add(self, engine)

    with monkeypatch.context() as patch:
        patch.setattr(LossTerms, "add", cut_power)
        with pytest.raises(RuntimeError):
            bundle_run("training", "train.yaml", folder=tmp_path, **{**options, "batch_size": 2})
    assert load(tmp_path)["trainer"]["epoch"] == 1
    mine = {**options, "train#sampler#shuffle": False, "resume": True}
    overlays = ("train.yaml", "multi_gpu_train.yaml")
    torchrun("training", *overlays, folder=tmp_path, bundle_root=bundle_root, options=mine)
    assert_close(load(tmp_path)["model"], load(single)["model"])
    assert_close(load(tmp_path)["loss"], load(single)["loss"])


@pytest.mark.parametrize(
    "names",
    [
        ["train.yaml", "dataset_amos22.yaml", "multi_gpu_train.yaml"],
        ["train.yaml", "ablation_no_alignment.yaml", "multi_gpu_train.yaml"],
        ["train.yaml", "baseline_backbone.yaml", "evaluate.yaml", "multi_gpu_evaluate.yaml"],
        ["inference.yaml", "dataset_amos22.yaml", "multi_gpu_inference.yaml"],
    ],
    ids="+".join,
)
def test_overlays_go_together(names: list[str]) -> None:
    assert check_config([str(CONFIGS / name) for name in names]) == []
