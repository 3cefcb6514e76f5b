from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.experiments.cost import parameters_in
from scripts.experiments.description import ExperimentSet, parse_set
from scripts.experiments.runner import Runner

ALL = [
    "training full/fold0_seed0",
    "evaluating fold0_seed0/validation",
    "training wide/fold0_seed0",
    "evaluating fold0_seed0/validation",
    "training full/fold1_seed0",
    "evaluating fold1_seed0/validation",
    "training wide/fold1_seed0",
    "evaluating fold1_seed0/validation",
    "evaluating fold0_seed0/validation",
    "evaluating fold1_seed0/validation",
]


@pytest.fixture
def said() -> list[str]:
    return []


def run(described: ExperimentSet, launch: Any, said: list[str] | None = None, **options: Any) -> dict[str, str]:
    lines: list[str] = [] if said is None else said
    return Runner(described, launch=launch, print_line=lines.append, **options).run()


class TestRunning:
    def test_each_step_once_and_in_order(self, described: ExperimentSet, launch: Any, said: list[str]) -> None:
        assert run(described, launch, said) == {}
        assert launch.steps == ALL
        folder = described.output / "named/fold1_seed0"
        assert sorted(path.name for path in folder.iterdir()) == ["validation"]
        record = json.loads((folder / "validation/run.json").read_text())
        assert (record["experiment"], record["fold"], record["seed"], record["position"]) == ("named", 1, 0, 2)
        assert record["parameters"] == 6
        finished = [line for line in said if line.startswith("[")]
        assert len(finished) == 6

    def test_what_is_complete_is_skipped(self, described: ExperimentSet, launch: Any, said: list[str]) -> None:
        run(described, launch)
        launch.calls.clear()
        run(described, launch, said)
        assert launch.calls == []
        assert said[0] == "[1 of 6] full fold 0 seed 0: complete, skipped"

    def test_what_was_killed_is_resumed(self, described: ExperimentSet, launch: Any) -> None:
        run(described, launch)
        folder = described.output / "wide/fold0_seed0"
        for path in (folder / "run.json", folder / "validation/run.json"):
            path.unlink()
        (folder / "last.pt").touch()
        launch.calls.clear()
        launch.commands.clear()
        assert run(described, launch) == {}
        assert launch.steps == ["training wide/fold0_seed0", "evaluating fold0_seed0/validation"]
        assert launch.commands[0][-2:] == ["--resume", "True"]
        assert "--resume" not in launch.commands[1]

    def test_missing_scores_are_made_without_training(self, described: ExperimentSet, launch: Any) -> None:
        run(described, launch)
        (described.output / "full/fold0_seed0/validation/metrics_per_case.csv").unlink()
        launch.calls.clear()
        run(described, launch)
        assert launch.steps == ["evaluating fold0_seed0/validation"]

    def test_another_split_scores_the_same_models(self, described: ExperimentSet, launch: Any) -> None:
        run(described, launch)
        launch.calls.clear()
        run(replace(described, evaluate_on="test"), launch)
        assert [run_id for run_id, _, _ in launch.calls] == ["evaluating"] * 6
        assert (described.output / "full/fold0_seed0/validation/run.json").is_file()

    def test_only_some(self, described: ExperimentSet, launch: Any) -> None:
        run(described, launch, only=["wide"])
        assert {folder.relative_to(described.output).parts[0] for _, folder, _ in launch.calls} == {"wide"}

    def test_jobs_share_the_cores_and_change_nothing(self, described: ExperimentSet, launch: Any) -> None:
        assert run(replace(described, jobs=3, threads=2), launch) == {}
        assert sorted(launch.steps) == sorted(ALL)
        assert {environment["OMP_NUM_THREADS"] for environment in launch.environments} == {"2"}
        assert all(step.is_done() for one in Runner(described).runs for step in one.steps)

    def test_one_job_leaves_the_threads_alone(self, described: ExperimentSet, launch: Any) -> None:
        run(described, launch, only=["wide"])
        assert all("OMP_NUM_THREADS" not in environment for environment in launch.environments)


class TestFailing:
    def test_the_others_go_on(self, described: ExperimentSet, launch: Any, said: list[str]) -> None:
        launch.fail = lambda run_id, folder: folder.parts[-2:] == ("full", "fold1_seed0")
        failures = run(described, launch, said)
        assert failures == {
            "full fold 1 seed 0": "training ended with status 1: ValueError: too dark",
            "named fold 1 seed 0": f"there is no trained model in '{described.output / 'full/fold1_seed0'}'.",
        }
        shown = "\n".join(said)
        assert "[3 of 6] full fold 1 seed 0: FAILED: training ended with status 1: ValueError: too dark" in shown
        assert "training.log" in shown
        assert launch.steps.count("training wide/fold1_seed0") == 1

    def test_a_failed_run_is_tried_again(self, described: ExperimentSet, launch: Any) -> None:
        launch.fail = lambda run_id, folder: run_id == "evaluating"
        assert len(run(described, launch)) == 6
        launch.fail = lambda run_id, folder: False
        launch.calls.clear()
        assert run(described, launch) == {}
        assert [run_id for run_id, _, _ in launch.calls] == ["evaluating"] * 6

    def test_a_command_that_makes_nothing_has_failed(self, described: ExperimentSet) -> None:
        failures = run(described, lambda command, log, environment: 0, only=["wide"])
        assert "ended well, yet there is no" in failures["wide fold 0 seed 0"]

    def test_a_killed_run_is_called_so(self, described: ExperimentSet) -> None:
        failures = run(described, lambda command, log, environment: -9, only=["wide"])
        assert failures["wide fold 0 seed 0"] == "training was killed by signal 9"

    def test_a_configuration_that_changes_meanwhile(self, content: dict[str, Any], launch: Any, tmp_path: Path) -> None:
        overlay = tmp_path / "mine.yaml"
        overlay.write_text("learning_rate: 1.0e-3\n")
        content |= {"experiments": {"full": [], "mine": [str(overlay)]}, "folds": [0]}
        runner = Runner(parse_set(content, "the test"), launch=launch, print_line=lambda line: None)
        runner.check()
        overlay.write_text("learning_rate: 1.0e-4\n")
        (reason,) = runner.run().values()
        assert reason.startswith("its configuration has changed since the set was started: learning_rate was 0.001")

    def test_interruption_stops_the_rest(self, described: ExperimentSet, launch: Any, said: list[str]) -> None:
        runner = Runner(described, print_line=said.append)

        def interrupted(command: list[str], log: Path, environment: dict[str, str]) -> int:
            runner.processes.stop()  # as the main thread does after Ctrl-C
            return -15

        runner.launch = interrupted
        assert runner.run() == {}
        assert [line for line in said if line.startswith("[")] == []
        assert not any(step.is_done() for one in runner.runs for step in one.steps)


class TestChecking:
    def test_a_sound_set_passes_and_writes_nothing(self, described: ExperimentSet) -> None:
        Runner(described).check()
        assert not described.output.exists()

    def test_every_problem_is_reported_before_anything_runs(self, content: dict[str, Any]) -> None:
        content["experiments"]["wide"] = ["absent.yaml"]
        content["experiments"]["full"]["options"] = {"max_epocs": 3}
        with pytest.raises(ValueError, match="nothing was started") as raised:
            Runner(parse_set(content, "the test")).check()
        assert "experiment 'wide': cannot find the config file" in str(raised.value)
        assert "experiment 'full': the command line: unknown key 'max_epocs'" in str(raised.value)
        assert "'max_epochs'" in str(raised.value)

    def test_absent_fold_raises(self, content: dict[str, Any]) -> None:
        content["folds"] = [0, 5]
        with pytest.raises(ValueError, match="full fold 5 seed 0: fold 5 does not exist; with num_folds 2"):
            Runner(parse_set(content, "the test")).check()

    def test_folder_of_another_configuration_raises(
        self, described: ExperimentSet, content: dict[str, Any], launch: Any
    ) -> None:
        run(described, launch)
        content["options"]["learning_rate"] = 0.5
        with pytest.raises(ValueError, match=r"wide fold 1 seed 0: .*another configuration: learning_rate was"):
            Runner(parse_set(content, "the test")).check()

    def test_experiments_on_different_cases_raise(
        self, content: dict[str, Any], names_only: Path, tmp_path: Path
    ) -> None:
        datalist = json.loads((names_only / "dataset.json").read_text())
        for entries in datalist.values():
            for entry in entries:
                entry |= {key: str(names_only / name) for key, name in entry.items()}
        datalist["training"].pop(0)
        (tmp_path / "fewer.json").write_text(json.dumps(datalist))
        content["experiments"]["wide"] = {"options": {"dataset_dir": str(tmp_path / "fewer.json")}}
        with pytest.raises(
            ValueError, match=r"wide fold \d seed 0 and full fold \d seed 0 would score different cases"
        ):
            Runner(parse_set(content, "the test")).check()

    def test_a_complete_run_of_another_configuration_is_not_compared(
        self, described: ExperimentSet, content: dict[str, Any], launch: Any
    ) -> None:
        run(described, launch, only=["full"])
        content["options"]["learning_rate"] = 0.5
        with pytest.raises(ValueError, match=r"full fold 0 seed 0: .*another configuration"):
            Runner(parse_set(content, "the test"), only=["wide"]).check()


def test_state_of_a_run(described: ExperimentSet, launch: Any) -> None:
    runner = Runner(described, launch=launch, print_line=lambda line: None)
    first = runner.runs[0]
    assert runner.state(first) == "to run"
    first.steps[0].start(first.steps[0].identity())
    (first.steps[0].folder / "last.pt").touch()
    assert runner.state(first) == "to resume"
    launch.fail = lambda run_id, folder: run_id == "evaluating"
    runner.run()
    assert runner.state(first) == "to evaluate"
    launch.fail = lambda run_id, folder: False
    Runner(described, launch=launch, print_line=lambda line: None).run()
    assert runner.state(first) == "complete"


def test_parameters_of_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"nothing")
    assert parameters_in(tmp_path / "model.pt") is None
