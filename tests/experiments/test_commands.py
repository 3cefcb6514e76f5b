from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.experiments import commands
from scripts.experiments.commands import run_experiments
from scripts.experiments.compare import compare_runs
from scripts.experiments.runner import Runner


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch, content: dict[str, Any], launch: Any, tmp_path: Path) -> Callable[..., None]:
    """`run_experiments` on the set as a file, with the fake launcher."""
    monkeypatch.setattr(commands, "Runner", lambda described, **options: Runner(described, launch=launch, **options))
    path = tmp_path / "set.yaml"

    def call(**options: Any) -> None:
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        run_experiments(str(path), **options)

    return call


@pytest.fixture
def output(content: dict[str, Any]) -> Path:
    return Path(content["output"])


class TestRunExperiments:
    def test_prints_and_writes_the_comparison(
        self, go: Callable[..., None], output: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        go()
        text = (output / "comparison_validation.md").read_text()
        assert text in capsys.readouterr().out
        # one more config file in evaluating is one more point of DSC, to the fake launcher
        assert "| Full (reference) | 53.00 ± 0.00 | **2.00** ± 0.00 |" in text
        assert "| wide | **54.00** ± 0.00 |" in text
        with (output / "comparison_validation.csv").open() as file:
            means = {row["experiment"]: row for row in csv.DictReader(file) if row["class"] == "mean"}
        assert {name: float(row["dice_mean"]) for name, row in means.items()} == pytest.approx(
            {"full": 0.53, "wide": 0.54, "named": 0.53}
        )
        with (output / "tests_validation.csv").open() as file:
            assert [row["experiment"] for row in csv.DictReader(file)] == ["wide", "named"]

    def test_failure_is_in_the_table_and_in_the_exit_status(
        self, go: Callable[..., None], launch: Any, output: Path
    ) -> None:
        launch.fail = lambda run_id, folder: folder.parts[-2:] == ("wide", "fold1_seed0")
        with pytest.raises(SystemExit) as stop:
            go()
        assert stop.value.code == 1
        text = (output / "comparison_validation.md").read_text()
        assert "| wide (1 of 2 runs) |" in text
        assert "FAILED: wide fold 1 seed 0: training ended with status 1: ValueError: too dark" in text

    def test_arguments_win_over_the_file(self, go: Callable[..., None], launch: Any) -> None:
        go(folds=1, only="wide", max_epochs=7)
        assert [folder.name for run_id, folder, _ in launch.calls if run_id == "training"] == ["fold1_seed0"]
        assert launch.calls[0][2]["max_epochs"] == 7

    def test_what_was_not_asked_for_is_in_the_table_if_it_has_run(self, go: Callable[..., None], output: Path) -> None:
        def rows() -> list[str]:
            lines = (output / "comparison_validation.md").read_text().split("\n\n")[0].splitlines()
            return [line.split(" | ")[0].strip("| ") for line in lines[2:]]

        go(only="wide")
        assert rows() == ["Full (reference, 0 of 2 runs)", "wide"]
        go(only="full")
        assert rows() == ["Full (reference)", "wide"]

    def test_dry_run_lists_and_starts_nothing(
        self, go: Callable[..., None], launch: Any, output: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        go(dry_run=True)
        assert capsys.readouterr().out.splitlines()[0] == "full fold 0 seed 0: to run"
        assert launch.calls == []
        assert not output.exists()

    def test_dry_run_refuses_what_the_command_would_refuse(self, go: Callable[..., None], output: Path) -> None:
        with pytest.raises(ValueError, match="full fold 7 seed 0: fold 7 does not exist; with num_folds 2"):
            go(folds=[7], dry_run=True)
        go()
        before = (output / "full/fold0_seed0/run.json").read_bytes()
        with pytest.raises(ValueError, match=r"full fold 0 seed 0: .*: max_epochs was 2 and is now 3"):
            go(max_epochs=3, dry_run=True)
        assert (output / "full/fold0_seed0/run.json").read_bytes() == before

    def test_only_an_unknown_one_raises(self, go: Callable[..., None]) -> None:
        with pytest.raises(ValueError, match="There is no experiment 'best' in the set: full, wide, named"):
            go(only=["best"])

    def test_interruption_is_an_exit_status(self, go: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(runner: Runner) -> dict[str, str]:
            raise KeyboardInterrupt

        monkeypatch.setattr(Runner, "run", interrupt)
        with pytest.raises(SystemExit) as stop:
            go()
        assert stop.value.code == 130


class TestCompareRuns:
    def test_of_what_is_there(self, go: Callable[..., None], output: Path) -> None:
        go()
        table = (output / "comparison_validation.md").read_text()
        (output / "wide/fold1_seed0/validation/run.json").unlink()
        compare_runs(str(output), reference="full")
        text = (output / "comparison_validation.md").read_text()
        assert text != table
        assert "INCOMPLETE: wide lacks fold 1 seed 0." in text
        assert text.index("| Full (reference)") < text.index("| wide (1 of 2 runs)")

    def test_equals_the_comparison_of_the_set(self, go: Callable[..., None], output: Path) -> None:
        go()
        table = (output / "comparison_validation.md").read_text()
        compare_runs(str(output), reference="full")
        assert (output / "comparison_validation.md").read_text() == table

    def test_runs_of_different_code_are_remarked(self, go: Callable[..., None], output: Path) -> None:
        go()
        assert "versions of the code" not in (output / "comparison_validation.md").read_text()
        marker = output / "wide/fold1_seed0/validation/run.json"
        marker.write_text(json.dumps({**json.loads(marker.read_text()), "code": "older"}))
        compare_runs(str(output))
        assert "made by 2 versions of the code" in (output / "comparison_validation.md").read_text()

    def test_without_a_reference_no_test_is_left_behind(self, go: Callable[..., None], output: Path) -> None:
        go()
        compare_runs(str(output))
        assert not (output / "tests_validation.csv").exists()

    def test_nothing_there_raises(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no completed run scored on 'test' below"):
            compare_runs(str(tmp_path), evaluate_on="test")

    def test_unknown_split_raises(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="evaluate_on is 'train'; expected one of validation, test"):
            compare_runs(str(tmp_path), evaluate_on="train")
