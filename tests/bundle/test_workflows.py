"""Train, evaluate, infer and resume, end to end, on a tiny phantom and from a foreign folder."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.transforms import Compose
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.data.datalist import training_items
from scripts.data.fingerprints import fingerprints
from scripts.networks.weights import record_of
from scripts.training.engines import LossTerms
from scripts.trust.digests import check_digest
from scripts.whole_file import digest_of
from scripts.words.table import ConceptTable

Run = Callable[..., None]
ORIENTATIONS = {"LPS", "RAS", "PIR", "RPI", "LAS", "SLA"}
LOSSES = ("segmentation", "class_embedding", "alignment")


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_identical(one: Any, other: Any, where: str = "state") -> None:
    """Bit for bit the same, whatever dictionaries and lists the tensors are in."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_identical(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for position, pair in enumerate(zip(one, other, strict=True)):
            assert_identical(*pair, f"{where}.{position}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def differs(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return any(not torch.equal(one[key], other[key]) for key in one)


class TestTraining:
    def test_makes_its_data_in_place(self, trained: Any) -> None:
        assert len(list((trained.data / "imagesTr").glob("*.nii.gz"))) == 6
        codes = ["".join(nib.aff2axcodes(nib.load(p).affine)) for p in (trained.data / "imagesTr").iterdir()]
        assert set(codes) == ORIENTATIONS

    def test_writes_nothing_but_models_and_logs(self, trained: Any) -> None:
        assert {path.name for path in trained.folder.iterdir()} == {"data", "models", "runs"}
        assert {path.name for path in (trained.folder / "models").iterdir()} == {"model.pt", "last.pt", "plan.json"}

    def test_best_model_is_a_flat_state_dict_and_knows_its_cases(self, trained: Any) -> None:
        content = load(trained.best)
        assert all(isinstance(value, torch.Tensor) for value in content.values())
        assert set(content) == set(load(trained.last)["model"])
        record = record_of(content)
        assert record["trained_on"] == fingerprints(training_items(trained.data, 0, 2))
        assert record["plan"]["spacing"] == [8.0, 8.0, 8.0]
        assert record["written"]["spacing"] == [4.0, 6.0, 8.0]  # of train.yaml, which an option changed
        assert record["plan_sha256"] == digest_of(trained.folder / "models/plan.json")
        assert record["images"]["has_air"]
        assert all(check_digest(path) for path in (trained.best, trained.last))

    def test_last_state_holds_the_whole_run(self, trained: Any) -> None:
        state = load(trained.last)
        assert set(state) == {
            *("model", "optimizer", "lr_scheduler", "loss", "best", "trainer", "trained_on", "settings"),
            "peak_memory",
        }
        assert state["trainer"]["epoch"] == state["trainer"]["max_epochs"] == 4
        assert state["trainer"]["iteration"] == 4 * 3
        assert state["loss"]["log_variance"].shape == (3,)
        assert (state["loss"]["log_variance"] != 0).all()

    def test_uncertainties_are_in_the_optimiser_without_decay(self, trained: Any) -> None:
        network, loss, text = load(trained.last)["optimizer"]["param_groups"]
        assert network["weight_decay"] == text["weight_decay"] == 1e-5
        assert loss["weight_decay"] == 0.0
        assert len(loss["params"]) == 1

    def test_schedule_ends_at_its_minimum(self, trained: Any) -> None:
        state = load(trained.last)
        rates = [group["lr"] for group in state["optimizer"]["param_groups"]]
        assert rates == pytest.approx([1e-7, 1e-7, 1e-7], rel=1e-6)

    def test_text_encoder_starts_at_its_own_rate(self, trained: Any) -> None:
        starts = [group["initial_lr"] for group in load(trained.last)["optimizer"]["param_groups"]]
        assert starts == [2e-3, 2e-3, 1e-4]

    def test_tensorboard_has_every_scalar(self, trained: Any, words: Path) -> None:
        board = EventAccumulator(str(trained.folder / "runs/tensorboard"))
        board.Reload()
        names = {f"train_{name}" for name in (*LOSSES, "loss", "alignment_global", "alignment_local")}
        names |= {f"train_{kind}_{name}" for name in LOSSES for kind in ("weight", "log_variance")}
        names |= {f"train_{side}" for side in ("top1_vision_to_text", "top1_text_to_vision")}
        names |= {"train_cosine_vision", "train_cosine_text", "learning_rate", "val_mean_dice"}
        names |= {f"dice_{name}" for name in ConceptTable.load(words).classes}
        assert names <= set(board.Tags()["scalars"])
        for name in names:
            events = board.Scalars(name)
            of_validation = name.startswith(("val_", "dice_"))
            assert [event.step for event in events] == ([2, 4] if of_validation else [1, 2, 3, 4]), name
            assert np.isfinite([event.value for event in events]).all(), name
        assert [event.step for event in board.Scalars("train_loss_iteration")] == list(range(1, 13))

    def test_learning_rate_follows_the_cosine(self, trained: Any) -> None:
        board = EventAccumulator(str(trained.folder / "runs/tensorboard"))
        board.Reload()
        logged = [event.value for event in board.Scalars("learning_rate")]
        expected = [1e-7 + (2e-3 - 1e-7) * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in range(4)]
        assert logged == pytest.approx(expected, rel=1e-4)

    def test_best_model_is_that_of_the_best_epoch(self, trained: Any) -> None:
        board = EventAccumulator(str(trained.folder / "runs/tensorboard"))
        board.Reload()
        dice = [event.value for event in board.Scalars("val_mean_dice")]
        assert load(trained.last)["best"]["best"] == pytest.approx(max(dice), rel=1e-5)

    def test_backbone_alone_trains_in_the_same_trainer(self, run: Run, trained: Any, tmp_path: Path) -> None:
        options = {**trained.options, "max_epochs": 1, "val_interval": 1}
        run("training", "train.yaml", "baseline_backbone.yaml", **options)
        names = set(load(tmp_path / "models/model.pt"))
        words = {name.removeprefix("backbone.") for name in load(trained.best) if "backbone." in name}
        assert {name for name in names if not name.endswith("_extra_state")} == words
        board = EventAccumulator(str(tmp_path / "runs/tensorboard"))
        board.Reload()
        logged = set(board.Tags()["scalars"])
        assert {"train_segmentation", "val_mean_dice"} <= logged
        assert not {"train_alignment", "train_class_embedding"} & logged

    def test_strong_augmentation_moves_image_and_label_alike(self, run: Run, trained: Any, bundle_root: Path) -> None:
        options = {**trained.options, "max_epochs": 1, "val_interval": 1}
        run("training", "train.yaml", "augmentation_strong.yaml", **options)
        parser = ConfigParser()
        parser.read_config([str(bundle_root / "configs" / f"{n}.yaml") for n in ("train", "augmentation_strong")])
        affine = Compose(parser.get_parsed_content("augmentation")[:1]).set_random_state(seed=0)
        grid = torch.arange(64 * 32 * 32, dtype=torch.float32).reshape(1, 64, 32, 32) // 1000
        moved = affine({"image": grid, "label": grid})
        assert not torch.equal(moved["label"], grid)
        assert set(moved["label"].unique().tolist()) <= set(grid.unique().tolist())  # nearest: no value in between
        assert (moved["image"] - moved["label"]).abs().median() < 1


class TestAnotherFold:
    """The training cases of the one are the validation cases of the other."""

    def test_is_not_scored_by_a_model_that_has_seen_it(
        self, run: Run, failing_run: Callable[..., BaseException], trained: Any, tmp_path: Path
    ) -> None:
        options = {**trained.options, "ckpt_path": str(trained.best), "fold": 1}
        seen = r"model\.pt was trained on 3 of the 3 cases to score, such as 'phantom_"
        failing_run(ValueError, seen, "evaluating", "train.yaml", "evaluate.yaml", **options)
        assert not (tmp_path / "runs/metrics").exists()
        run("evaluating", "train.yaml", "evaluate.yaml", **options, **{"load_weights#unseen": []})
        assert (tmp_path / "runs/metrics/metrics_per_case.csv").is_file()

    def test_is_not_resumed(self, failing_run: Callable[..., BaseException], trained: Any, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        shutil.copy(trained.last, tmp_path / "models/last.pt")
        options = {**trained.options, "fold": 1, "resume": True}
        failing_run(ValueError, "belongs to a run with fold = 0, now 1", "training", "train.yaml", **options)
        assert (tmp_path / "models/last.pt").read_bytes() == trained.last.read_bytes()
        assert not (tmp_path / "models/model.pt").exists()


class TestModelsOwnSettings:
    def test_need_not_be_repeated(
        self, run: Run, trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        repeated = ("spacing", "roi_size", "backbone#network#depths")
        options = {key: value for key, value in trained.options.items() if key not in repeated}
        with caplog.at_level("INFO"):
            run("evaluating", "train.yaml", "evaluate.yaml", **options, ckpt_path=str(trained.best))
        assert "Used as the model was trained: " in caplog.text
        assert (tmp_path / "runs/metrics/metrics_per_case.csv").is_file()

    def test_are_not_contradicted(self, failing_run: Callable[..., BaseException], trained: Any) -> None:
        options = {**trained.options, "ckpt_path": str(trained.best), "spacing": [6.0, 6.0, 6.0]}
        message = r"trained with spacing = \[8.0, 8.0, 8.0\]; this run has \[6.0, 6.0, 6.0\]"
        failing_run(ValueError, message, "evaluating", "train.yaml", "evaluate.yaml", **options)

    def test_start_from_a_model_that_has_seen_the_validation_cases(
        self, failing_run: Callable[..., BaseException], trained: Any
    ) -> None:
        options = {**trained.options, "start_from": str(trained.best), "fold": 1}
        message = r"was trained on 3 of the 3 cases to score.*--start_weights#unseen"
        failing_run(ValueError, message, "training", "train.yaml", **options)


class TestFolderOfAnotherRun:
    def test_is_not_written_to(self, failing_run: Callable[..., BaseException], trained: Any, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        shutil.copy(trained.best, tmp_path / "models/model.pt")
        failing_run(
            FileExistsError, r"models' holds model\.pt of another run", "training", "train.yaml", **trained.options
        )
        assert (tmp_path / "models/model.pt").read_bytes() == trained.best.read_bytes()


class TestReproducibility:
    def test_one_seed_gives_one_result_to_the_digit(self, bundle_run: Run, trained: Any, tmp_path: Path) -> None:
        states = []
        for name, seed in (("first", 0), ("second", 0), ("other", 1)):
            (tmp_path / name).mkdir()
            # The same folds for both seeds: another seed would also pick other cases to train on.
            options = {**trained.options, "max_epochs": 1, "seed": seed, "train#dataset#data#seed": 0}
            torch.rand(7 * len(states))  # whatever was drawn before the run has no part in it
            bundle_run("training", "train.yaml", folder=tmp_path / name, **options)
            states.append(load(tmp_path / name / "models/last.pt"))
        for state in states:
            del state["peak_memory"]
        assert_identical(states[0], states[1])
        assert differs(states[0]["model"], states[2]["model"])


class TestResume:
    def test_killed_run_goes_on_as_if_it_had_not_been(
        self, run: Run, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Four epochs straight equal two, a stop in the midst of the third, and the rest after `resume`."""
        add = LossTerms.add

        def cut_power(self: LossTerms, engine: Engine) -> None:
            if (engine.state.epoch, engine.state.iteration) == (3, 8):
                raise SystemError("power cut")
            add(self, engine)

        with monkeypatch.context() as patch:
            patch.setattr(LossTerms, "add", cut_power)
            with pytest.raises(RuntimeError):
                run("training", "train.yaml", **trained.options)
        assert load(tmp_path / "models/last.pt")["trainer"] == {"epoch": 2, "iteration": 6, "max_epochs": 4}

        run("training", "train.yaml", **trained.options, resume=True)
        states = [load(path) for path in (tmp_path / "models/last.pt", trained.last)]
        for state in states:
            del state["peak_memory"]
        assert_identical(*states)
        assert_identical(load(tmp_path / "models/model.pt"), load(trained.best))

    def test_finished_run_has_nothing_left_to_do(self, run: Run, trained: Any, tmp_path: Path) -> None:
        shutil.copytree(trained.folder / "models", tmp_path / "models")
        run("training", "train.yaml", **trained.options, resume=True)
        assert_identical(load(tmp_path / "models/last.pt"), load(trained.last))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def scores(bundle_run: Run, trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the scores of the trained model on the fold that it was not trained on."""
    folder = tmp_path_factory.mktemp("evaluated")
    options = {**trained.options, "ckpt_dir": str(trained.folder / "models")}
    bundle_run("evaluating", "train.yaml", "evaluate.yaml", folder=folder, **options)
    return folder / "runs/metrics"


class TestEvaluation:
    def test_every_case_and_class_has_a_row(self, scores: Path, words: Path) -> None:
        rows = read_csv(scores / "metrics_per_case.csv")
        cases, classes = {row["case"] for row in rows}, ConceptTable.load(words).classes
        assert len(cases) == 3
        assert [(row["case"], row["class"]) for row in rows] == [(c, n) for c in sorted(cases) for n in classes]

    def test_voxels_are_counted_on_the_grid_of_the_label(self, scores: Path, trained: Any, words: Path) -> None:
        rows = read_csv(scores / "metrics_per_case.csv")
        classes = ConceptTable.load(words).classes
        for case in {row["case"] for row in rows}:
            label = np.asarray(nib.load(trained.data / "labelsTr" / f"{case}.nii.gz").dataobj)
            counts = {row["class"]: int(row["voxels_reference"]) for row in rows if row["case"] == case}
            assert counts == {name: (label == c).sum() for c, name in enumerate(classes, start=1)}

    def test_missed_classes_are_counted(self, scores: Path) -> None:
        rows = read_csv(scores / "metrics_per_case.csv")
        summary = {row["class"]: row for row in read_csv(scores / "metrics_summary.csv")}
        for name in {row["class"] for row in rows}:
            missed = [row for row in rows if row["class"] == name and row["voxels_prediction"] == "0"]
            assert int(summary[name]["missed"]) == len(missed)
            assert all(float(row["dice"]) == float(row["nsd"]) == 0 for row in missed)
            assert all(np.isnan(float(row["hd95_mm"])) for row in missed)
        assert int(summary["mean"]["missed"]) == sum(int(row["missed"] == "True") for row in rows)

    def test_table_is_printed(
        self, run: Run, trained: Any, words: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        options = {**trained.options, "ckpt_dir": str(trained.folder / "models"), "evaluate_on": "test"}
        run("evaluating", "train.yaml", "evaluate.yaml", **options)
        printed = capsys.readouterr().out
        assert "HD95 mm" in printed
        assert all(name in printed for name in ConceptTable.load(words).classes)
        rows = read_csv(tmp_path / "runs/metrics/metrics_per_case.csv")
        assert {row["case"] for row in rows} == {"phantom_test_001"}


class TestInference:
    def infer(self, run: Run, trained: Any, tiny: dict[str, Any], source: Path, **request: Any) -> None:
        checkpoint = str(trained.best)
        run(
            "inference",
            "inference.yaml",
            **tiny,
            dataset_dir=str(source),
            ckpt_path=checkpoint,
            sw_overlap=0.0,
            **request,
        )

    def test_request_for_some_classes_and_one_by_its_words(
        self, run: Run, trained: Any, tiny: dict[str, Any], tmp_path: Path
    ) -> None:
        """The model's file knows the table of its training, which does not take the place of what is asked for."""
        image = trained.data / "imagesTs/phantom_test_001.nii.gz"
        self.infer(run, trained, tiny, image, classes=["spleen", "x"], words={"x": {"shape": "liver form."}})
        rows = read_csv(tmp_path / "runs/predictions/labels.csv")
        assert [(row["label"], row["class"], row["learnt"]) for row in rows] == [
            ("1", "spleen", "yes"),
            ("2", "x", "no"),
        ]

    def test_folder_gives_label_maps_on_the_grids_of_the_inputs(
        self, run: Run, trained: Any, tiny: dict[str, Any], tmp_path: Path
    ) -> None:
        self.infer(run, trained, tiny, trained.data / "imagesTr")
        written = sorted((tmp_path / "runs/predictions").glob("*.nii.gz"))
        inputs = sorted((trained.data / "imagesTr").iterdir())
        assert [p.name for p in written] == [p.name.replace(".nii.gz", "_seg.nii.gz") for p in inputs]
        for result, source in zip(map(nib.load, written), map(nib.load, inputs), strict=True):
            assert result.get_data_dtype() == np.uint8
            assert result.shape == source.shape
            assert nib.aff2axcodes(result.affine) == nib.aff2axcodes(source.affine)
            np.testing.assert_allclose(result.affine, source.affine, atol=1e-4)
            assert set(np.unique(np.asarray(result.dataobj))) <= set(range(9))

    def test_one_file(self, run: Run, trained: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
        self.infer(run, trained, tiny, trained.data / "imagesTs/phantom_test_001.nii.gz")
        assert [p.name for p in (tmp_path / "runs/predictions").glob("*.nii.gz")] == ["phantom_test_001_seg.nii.gz"]

    def test_datalist(self, run: Run, trained: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
        images = [str(trained.data / f"imagesTr/phantom_train_00{i}.nii.gz") for i in (2, 3)]
        (tmp_path / "list.json").write_text(json.dumps({"test": [{"image": image} for image in images]}))
        self.infer(run, trained, tiny, tmp_path / "list.json")
        names = {p.name for p in (tmp_path / "runs/predictions").glob("*.nii.gz")}
        assert names == {"phantom_train_002_seg.nii.gz", "phantom_train_003_seg.nii.gz"}

    def test_perfect_prediction_comes_back_in_place(
        self, run: Run, trained: Any, tiny: dict[str, Any], tmp_path: Path
    ) -> None:
        """Images that show their own labels, and a network that reads them off, for each orientation.

        Label c is drawn at the intensity x = c / 8. The logits 2 x c / 8 - (c / 8)^2 are linear in x and
        largest for the label c / 8 that is nearest to x: a convolution of one voxel. A thousand times as large they
        are those of a network that is sure, of which half-way between two labels no third one is left.
        """
        levels = torch.arange(9) / 8
        convolution = {"weight": (2000 * levels).reshape(9, 1, 1, 1, 1), "bias": -1000 * levels**2}
        torch.save({"model": convolution}, tmp_path / "oracle.pt")
        (tmp_path / "images").mkdir()
        labels = sorted((trained.data / "labelsTr").iterdir())
        for path in labels:
            label = nib.load(path)
            hounsfield = -175 + 425 * (np.asarray(label.dataobj) / 8)
            nib.save(nib.Nifti1Image(hounsfield, label.affine), tmp_path / "images" / path.name)
        overlay = tmp_path / "oracle.yaml"
        overlay.write_text(
            "network_def: {_target_: torch.nn.Conv3d, in_channels: 1, out_channels: 9, kernel_size: 1}\n"
            "base_transforms#2#mode: [nearest, nearest]\n"  # in between two labels lies a third
        )
        options = {**tiny, "spacing": [2.0, 2.0, 2.5], "roi_size": [64, 64, 64], "sw_overlap": 0.0}
        paths = {"dataset_dir": str(tmp_path / "images"), "ckpt_path": str(tmp_path / "oracle.pt")}
        run("inference", "inference.yaml", overlay, **options, **paths)
        for path in labels:
            result = nib.load(tmp_path / "runs/predictions" / path.name.replace(".nii", "_seg.nii"))
            truth, found = np.asarray(nib.load(path).dataobj), np.asarray(result.dataobj)
            for c in range(1, 9):
                overlap = 2 * ((truth == c) & (found == c)).sum() / ((truth == c).sum() + (found == c).sum())
                assert overlap > 0.9, (path.name, c)


@pytest.mark.slow
def test_command_line_from_a_foreign_folder(
    trained: Any, bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented commands, in processes of their own, with the text encoder and the words of the bundle."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    configs = bundle_root / "configs"
    small = ["--bundle_root", str(bundle_root), "--ckpt_dir", str(tmp_path / "models")]
    small += [
        "--output_dir",
        str(tmp_path / "runs"),
        "--spacing",
        "[8.0,8.0,8.0]",
        "--roi_size",
        "[64,32,32]",
    ]
    data = ["--dataset_dir", str(trained.data), "--prepare_data#num_training", "6", "--num_folds", "2"]
    data += ["--prepare_data#num_test", "1", "--max_epochs", "1", "--val_interval", "1"]

    def command(run_id: str, files: str, *options: str) -> str:
        call = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", files, *small, *options]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    training = command("training", str(configs / "train.yaml"), *data)
    assert "Best val_mean_dice so far" in training
    assert "HD95 mm" in command("evaluating", f"['{configs}/train.yaml','{configs}/evaluate.yaml']", *data)
    command("inference", str(configs / "inference.yaml"), "--dataset_dir", str(trained.data / "imagesTs"))
    assert (tmp_path / "runs/predictions/phantom_test_001_seg.nii.gz").is_file()
