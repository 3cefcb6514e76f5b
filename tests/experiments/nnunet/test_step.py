"""nnU-Net as a row of a set, without nnU-Net: what it would be called with, when it is skipped, how it is compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.conftest import FakeLaunch, write_scores

from scripts.experiments.compare import compare_runs
from scripts.experiments.description import parse_set
from scripts.experiments.nnunet.environment import STAMP, _wanted
from scripts.experiments.nnunet.step import NnunetStep
from scripts.experiments.plan import plan_runs
from scripts.experiments.runner import Runner

SETTINGS = {"epochs": 2, "iterations": 5, "mirror": False}


class WithNnunet(FakeLaunch):
    """Stands for nnU-Net too."""

    def __call__(self, command: list[str], log: Path, environment: Any) -> int:
        if "scripts.experiments.nnunet" not in command:
            return super().__call__(command, log, environment)
        arguments = json.loads(Path(command[-1]).read_text())
        self.calls.append(("nnunet", log.parent, arguments))
        self.environments.append(environment)
        write_scores(log.parent, arguments["fold"], 0.9)
        cost = {"parameters": 7, "operations": 9, "iteration_seconds": 1.5, "peak_bytes": 2**30, "device": "cpu"}
        (log.parent.parent / "cost.json").write_text(json.dumps(cost))
        return 0


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    folder = tmp_path / "nnunet"
    folder.mkdir()
    (folder / STAMP).write_text(_wanted())
    return folder


@pytest.fixture
def with_row(content: dict[str, Any], environment: Path) -> dict[str, Any]:
    row = {"title": "nnU-Net", "nnunet": {**SETTINGS, "environment": str(environment)}}
    return {**content, "experiments": {"full": [], "nnunet": row}}


def test_row_is_called_with_the_data_of_the_set_and_its_own_settings(
    with_row: dict[str, Any], environment: Path, names_only: Path
) -> None:
    (step,) = next(run for run in plan_runs(parse_set(with_row, "x")) if run.experiment.name == "nnunet").steps
    assert isinstance(step, NnunetStep)
    assert step.folder == Path(with_row["output"]) / "nnunet/fold0_seed0/validation"
    command = step.start(step.identity())
    assert command[1:3] == ["-m", "scripts.experiments.nnunet"]
    given = json.loads(Path(command[3]).read_text())
    expected = {**SETTINGS, "environment": str(environment), "fold": 0, "seed": 0, "evaluate_on": "validation"}
    expected |= {"name": "nnunet", "title": "nnU-Net", "output": with_row["output"], "dataset_dir": str(names_only)}
    assert expected.items() <= given.items()
    assert [Path(path).name for path in given["config_file"]] == ["train.yaml", "evaluate.yaml"]
    assert set(step.identity()["cases"]) | set(step.identity()["training_cases"]) == {f"case{n}" for n in range(6)}


def test_row_is_run_once_and_compared(with_row: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    launch = WithNnunet()
    for _ in range(2):
        assert Runner(parse_set(with_row, "x"), launch=launch).run() == {}
    assert [run_id for run_id, _, _ in launch.calls].count("nnunet") == 2  # a fold each
    assert all("bipvl_bundle" in environment["PYTHONPATH"] for environment in launch.environments)
    compare_runs(with_row["output"], reference="full")
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| nnU-Net |"))
    assert "**91.00**" in row
    assert "| 1.5 | 1.00 |" in row


def test_other_settings_are_another_row(with_row: dict[str, Any]) -> None:
    Runner(parse_set(with_row, "x"), launch=WithNnunet()).run()
    with_row["experiments"]["nnunet"]["nnunet"]["epochs"] = 3
    with pytest.raises(ValueError, match=r"nnunet fold 0 seed 0: .*nnunet#epochs was 2 and is now 3"):
        Runner(parse_set(with_row, "x"), launch=WithNnunet()).check()


def test_without_its_environment_the_row_is_skipped_and_said(with_row: dict[str, Any], environment: Path) -> None:
    (environment / STAMP).unlink()
    said: list[str] = []
    runner = Runner(parse_set(with_row, "x"), launch=WithNnunet(), print_line=said.append)
    assert runner.run() == {}
    assert set(runner.skipped) == {"nnunet fold 0 seed 0", "nnunet fold 1 seed 0"}
    line = next(line for line in said if "nnunet fold 0" in line)
    assert f"SKIPPED: nnU-Net's environment is not in '{environment}'. `install: true` in the row makes it" in line
    assert [runner.state(run).split(":")[0] for run in runner.runs if run.experiment.nnunet] == ["to skip"] * 2


def test_environment_is_made_once_where_the_row_says_so(
    with_row: dict[str, Any], environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / STAMP).unlink()
    with_row["experiments"]["nnunet"]["nnunet"]["install"] = True
    made: list[Path] = []
    monkeypatch.setattr("scripts.experiments.runner.ensure_environment", made.append)
    launch = WithNnunet()
    runner = Runner(parse_set(with_row, "x"), launch=launch)
    assert runner.run() == {} == runner.skipped
    assert made == [environment]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"nnunet": {"epoch": 3}}, "'epoch'"),
        ({"nnunet": {"epochs": 0}}, "experiment 'row', nnunet: epochs is 0; expected a whole number from 1"),
        ({"nnunet": {"mirror": 1}}, "mirror is 1; expected true or false"),
        ({"nnunet": 3}, "'nnunet' is 3; expected a mapping with some of epochs"),
        ({"nnunet": {}, "evaluates": "full"}, "'nnunet' trains and 'evaluates' does not"),
    ],
)
def test_unusable_settings_raise(content: dict[str, Any], row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_set({**content, "experiments": {"full": [], "row": row}}, "the test")


def test_models_of_nnunet_cannot_be_evaluated_by_another_row(content: dict[str, Any]) -> None:
    rows = {"full": [], "nnunet": {"nnunet": None}, "other": {"evaluates": "nnunet"}}
    with pytest.raises(ValueError, match="it evaluates 'nnunet'; expected an experiment of this set that trains: full"):
        parse_set({**content, "experiments": rows}, "the test")
