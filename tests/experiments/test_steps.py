from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.experiments.description import BUNDLE_ROOT, ExperimentSet, config_path, parse_set
from scripts.experiments.plan import Run, plan_runs
from scripts.experiments.records import differences
from scripts.experiments.steps import Step


def run_of(described: ExperimentSet, name: str, fold: int = 0) -> Run:
    return next(run for run in plan_runs(described) if (run.experiment.name, run.fold) == (name, fold))


@pytest.fixture
def training(described: ExperimentSet) -> Step:
    return run_of(described, "full").steps[0]


class TestPlan:
    def test_order_is_fold_by_fold_and_evaluations_of_others_last(self, described: ExperimentSet) -> None:
        assert [str(run) for run in plan_runs(described)] == [
            "full fold 0 seed 0",
            "wide fold 0 seed 0",
            "full fold 1 seed 0",
            "wide fold 1 seed 0",
            "named fold 0 seed 0",
            "named fold 1 seed 0",
        ]

    def test_training_and_evaluating_of_one_run(self, described: ExperimentSet, configs: Path) -> None:
        training, evaluating = run_of(described, "wide", fold=1).steps
        assert training.folder == described.output / "wide/fold1_seed0"
        assert evaluating.folder == training.folder / "validation"
        assert training.files == (configs / "train.yaml", configs / "wide.yaml")
        assert evaluating.files == (*training.files, configs / "evaluate.yaml")
        assert (training.options["fold"], training.options["seed"]) == (1, 0)
        assert training.options["ckpt_dir"] == training.options["output_dir"] == str(training.folder)
        assert evaluating.options["ckpt_path"] == str(training.folder / "model.pt")
        assert evaluating.options["metrics_dir"] == str(evaluating.folder)
        assert "evaluate_on" not in training.options

    def test_evaluation_of_another_has_its_model_and_both_configurations(self, content: dict[str, Any]) -> None:
        content["experiments"] = {
            "one": {"overlays": ["a.yaml"], "options": {"x": 1, "y": 1}},
            "swapped": {"evaluates": "one", "overlays": ["b.yaml"], "options": {"y": 2}},
        }
        content["reference"] = None
        content["evaluation"] = {"nsd_tolerance": 1.0}
        (step,) = run_of(parse_set(content, "the test"), "swapped").steps
        assert [path.name for path in step.files] == ["train.yaml", "a.yaml", "b.yaml", "evaluate.yaml"]
        assert (step.options["x"], step.options["y"], step.options["nsd_tolerance"]) == (1, 2, 1.0)
        assert step.options["ckpt_path"].endswith("one/fold0_seed0/model.pt")
        assert step.folder.parts[-3:] == ("swapped", "fold0_seed0", "validation")


class TestIdentity:
    def test_is_made_of_configuration_words_and_cases(self, training: Step) -> None:
        identity = training.identity()
        assert identity["configuration"]["max_epochs"] == 2
        assert (len(identity["cases"]), len(identity["validation_cases"])) == (3, 3)
        assert not {"ckpt_dir", "output_dir", "bundle_root"} & set(identity["configuration"])

    def test_evaluating_has_the_other_cases(self, described: ExperimentSet) -> None:
        training, evaluating = run_of(described, "full").steps
        assert set(training.identity()["cases"]).isdisjoint(evaluating.identity()["cases"])
        assert run_of(described, "full", fold=1).steps[0].identity()["cases"] == evaluating.identity()["cases"]

    def test_words_count_and_their_review_does_not(self, training: Step, configs: Path) -> None:
        before = training.identity()
        table = yaml.safe_load((configs / "words.yaml").read_text())
        (configs / "words.yaml").write_text(yaml.safe_dump({**table, "reviewed": True}))
        assert training.identity() == before
        table["classes"][0]["shape"] = "Other words."
        (configs / "words.yaml").write_text(yaml.safe_dump(table))
        assert training.identity() != before

    def test_bare_names_are_those_of_the_bundle(self) -> None:
        assert config_path("train.yaml") == BUNDLE_ROOT / "configs/train.yaml"
        assert config_path("configs/train.yaml") == Path.cwd() / "configs/train.yaml"

    def test_absent_fold_raises(self, content: dict[str, Any]) -> None:
        content["folds"] = [2]
        with pytest.raises(ValueError, match="fold 2 does not exist; with num_folds 2"):
            run_of(parse_set(content, "the test"), "full", fold=2).steps[0].identity()

    def test_files_count_and_so_do_the_cases_that_choose_the_epoch(
        self, content: dict[str, Any], names_only: Path, tmp_path: Path
    ) -> None:
        training = [
            {"image": str(names_only / f"case{n}.nii.gz"), "label": str(names_only / f"label{n}.nii.gz"), "fold": n % 3}
            for n in range(6)
        ]
        content["options"] |= {"dataset_dir": str(tmp_path / "list.json"), "num_folds": 3}

        def identity(entries: list[dict[str, Any]]) -> dict[str, Any]:
            (tmp_path / "list.json").write_text(json.dumps({"training": entries, "test": []}))
            return run_of(parse_set(content, "the test"), "full").steps[0].identity()

        whole = identity(training)
        assert whole["cases"]["case1"] == [str(names_only / "case1.nii.gz"), str(names_only / "label1.nii.gz")]
        fewer = identity([entry for n, entry in enumerate(training) if n != 3])  # of fold 0, held out
        assert list(differences(whole, fewer)) == ["validation_cases#case3 is gone"]
        relabelled = identity([{**training[0], "label": training[1]["label"]}, *training[1:]])
        assert list(relabelled["validation_cases"]) == list(whole["validation_cases"])
        assert relabelled != whole


class TestFolder:
    def test_starting_writes_what_the_run_is(self, training: Step) -> None:
        identity = training.identity()
        command = training.start(identity)
        assert json.loads((training.folder / "configuration.json").read_text())["identity"] == identity
        arguments = json.loads((training.folder / "arguments.json").read_text())
        assert arguments["max_epochs"] == 2
        assert arguments["config_file"] == [str(path) for path in training.files]
        assert command[1:5] == ["-m", "monai.bundle", "run", "training"]
        assert command[-2:] == ["--overwrite", "True"]

    def test_a_last_state_is_resumed(self, training: Step) -> None:
        training.folder.mkdir(parents=True)
        (training.folder / "last.pt").touch()
        assert training.start(training.identity())[-2:] == ["--resume", "True"]

    def test_same_configuration_passes(self, training: Step) -> None:
        training.check_folder(training.identity())
        training.start(training.identity())
        training.check_folder(training.identity())

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"max_epochs": 3}, "max_epochs was 2 and is now 3"),
            ({"backbone#network#feature_size": 24}, "backbone#network#feature_size was 12 and is now 24"),
            ({"num_folds": 3}, "num_folds was 2 and is now 3"),
        ],
    )
    def test_another_configuration_raises_and_leaves_it(
        self, content: dict[str, Any], training: Step, options: dict[str, Any], match: str
    ) -> None:
        training.start(training.identity())
        before = {path.name: path.read_bytes() for path in training.folder.iterdir()}
        content["options"] |= options
        other = run_of(parse_set(content, "the test"), "full").steps[0]
        with pytest.raises(ValueError, match=f"another configuration: .*{match}"):
            other.check_folder(other.identity())
        assert {path.name: path.read_bytes() for path in training.folder.iterdir()} == before

    @pytest.mark.parametrize("options", [{"num_workers": 3}, {"device": "cuda:0"}, {"cache_rate": 0.5}])
    def test_speed_is_no_other_configuration(
        self, content: dict[str, Any], training: Step, options: dict[str, Any]
    ) -> None:
        training.start(training.identity())
        content["options"] |= options
        other = run_of(parse_set(content, "the test"), "full").steps[0]
        other.check_folder(other.identity())

    def test_foreign_folder_raises(self, training: Step) -> None:
        training.folder.mkdir(parents=True)
        (training.folder / "notes.txt").write_text("mine")
        with pytest.raises(FileExistsError, match=r"no configuration\.json: it is not the folder of a run"):
            training.check_folder(training.identity())


class TestCompletion:
    def test_is_marked_after_the_product(self, training: Step) -> None:
        identity = training.identity()
        command = training.start(identity)
        assert not training.is_done()
        with pytest.raises(FileNotFoundError, match=r"yet there is no '.*model\.pt'"):
            training.finish(identity, command)
        training.product.touch()
        assert not training.is_done()
        training.finish(identity, command, seconds=1.0)
        assert training.is_done()
        record = training.read_marker()
        assert record["command"].startswith(command[0])
        assert record["seconds"] == 1.0
        assert {"torch", "monai", "python"} <= set(record["versions"])

    def test_scores_of_an_older_model_do_not_count(self, described: ExperimentSet) -> None:
        training, evaluating = run_of(described, "full").steps
        for step in (training, evaluating):
            command = step.start(step.identity())
            step.product.touch()
            step.finish(step.identity(), command)
        assert evaluating.is_done()
        training.finish(training.identity(), [], retrained=True)
        assert not evaluating.is_done()
