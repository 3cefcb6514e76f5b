from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from scripts.configuration import errors
from scripts.configuration.check import check_config
from scripts.configuration.errors import FILE, SWITCH, error_text, say_when_interrupted, show_errors_last
from scripts.data.splits import require_fold
from scripts.training.memory_advice import MemoryAdvice

REFUSAL = {"_target_": "scripts.configuration.check.check_config", "config_file": "absent.yaml"}
MESSAGE = "cannot find the config file absent.yaml: expected a YAML or JSON file; check the path"


def raised(config: dict[str, Any], key: str = "a") -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what monai wraps an error in is its own affair
        ConfigParser(config).get_parsed_content(key)
    return caught.value


class Refusing(Dataset):
    def __init__(self, *, unforeseen: bool) -> None:
        self.unforeseen = unforeseen

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        try:
            return {}["case"] if self.unforeseen else check_config("absent.yaml")
        except (KeyError, FileNotFoundError) as error:
            raise RuntimeError("applying transform <object at 0x7f>") from error


class TestText:
    def test_message_of_the_bundle_comes_without_the_wrappers(self) -> None:
        error = raised({"a": "$len(@b)", "b": REFUSAL})
        assert MESSAGE not in str(error)
        assert error_text(error) == (MESSAGE, True)

    def test_of_two_messages_of_the_bundle_the_last_is_reported(self) -> None:
        with pytest.raises(FileNotFoundError) as first:
            check_config("absent.yaml")
        with pytest.raises(ValueError, match="fold") as last:
            require_fold(7, 3)
        last.value.__cause__ = first.value
        assert error_text(last.value) == (str(last.value), True)

    def test_all_lines_of_a_message_are_reported(self) -> None:
        shortage = torch.OutOfMemoryError("CUDA out of memory.")
        with pytest.raises(MemoryError) as caught:
            MemoryAdvice({"amp": False})(Engine(lambda engine, batch: None), shortage)
        text, explained = error_text(caught.value)
        assert explained
        assert text == str(caught.value)
        assert text.count("\n") == 2

    def test_other_errors_are_reported_by_the_first_of_the_chain(self) -> None:
        assert error_text(raised({"a": "$@b + 1", "b": "$1 / 0"})) == ("ZeroDivisionError: division by zero", False)

    def test_fault_in_the_bundle_is_no_message(self) -> None:
        with pytest.raises(TypeError) as caught:
            check_config([3])  # type: ignore[list-item]
        text, explained = error_text(caught.value)
        assert not explained
        assert text == f"TypeError: {caught.value}"

    def test_error_that_was_handled_is_not_told(self) -> None:
        with pytest.raises(FileNotFoundError) as handled:
            check_config("absent.yaml")
        error = OSError("no disk")
        error.__context__ = handled.value
        assert error_text(error) == ("OSError: no disk", False)

    @pytest.mark.parametrize(("unforeseen", "message"), [(False, (MESSAGE, True)), (True, ("KeyError: 'case'", False))])
    def test_worker_of_a_data_loader_is_understood(self, unforeseen: bool, message: tuple[str, bool]) -> None:
        with pytest.raises(RuntimeError, match="worker process") as caught:
            list(DataLoader(Refusing(unforeseen=unforeseen), num_workers=1))
        assert error_text(caught.value) == message


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.delenv(SWITCH, raising=False)
    return


def end_by(error: BaseException) -> None:
    """What Python does with an error that nobody catches."""
    sys.excepthook(type(error), error, error.__traceback__)


@pytest.mark.usefixtures("hook")
class TestHook:
    def test_message_is_all_that_is_printed(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        show_errors_last(tmp_path)
        end_by(raised({"a": REFUSAL}))
        assert capsys.readouterr().err == f"\nError: {MESSAGE}\n"
        assert not list(tmp_path.iterdir())

    def test_traceback_is_printed_above_where_it_is_asked_for(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(SWITCH, "1")
        show_errors_last()
        end_by(raised({"a": REFUSAL}))
        said = capsys.readouterr().err
        assert said.startswith("Traceback (most recent call last)")
        assert said.endswith(f"\n\nError: {MESSAGE}\n")

    def test_other_errors_leave_their_traceback_in_a_file(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        show_errors_last(tmp_path / "runs")
        end_by(raised({"a": "$1 / 0"}))
        name, hint = capsys.readouterr().err.strip().split("\n")
        assert name == "ZeroDivisionError: division by zero"
        assert str(tmp_path / "runs" / FILE) in hint
        assert SWITCH in hint
        assert "Failed to evaluate" in (tmp_path / "runs" / FILE).read_text()

    def test_file_that_cannot_be_written_does_not_hide_the_error(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        show_errors_last(tmp_path / "file")
        end_by(raised({"a": "$1 / 0"}))
        assert capsys.readouterr().err == (
            "\nZeroDivisionError: division by zero\n"
            f"BiPVL-Seg has no advice on this error. Its traceback: {SWITCH}=1 in the environment prints it.\n"
        )

    def test_interrupt_is_one_line(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(errors, "_on_interrupt", [])
        show_errors_last(tmp_path)
        end_by(KeyboardInterrupt())
        assert capsys.readouterr().err == "\nInterrupted.\n"
        say_when_interrupted("Go on by this.")
        end_by(KeyboardInterrupt("SIGTERM"))
        assert capsys.readouterr().err == "\nInterrupted by SIGTERM. Go on by this.\n"

    @pytest.mark.parametrize("leave", [True, False])
    def test_progress_bar_ends_above_the_message(self, capsys: pytest.CaptureFixture[str], leave: bool) -> None:
        bar = tqdm(range(3), desc="Loading", leave=leave)
        show_errors_last()
        end_by(raised({"a": REFUSAL}))
        bar.close()
        said = capsys.readouterr().err
        assert "Loading" in said
        assert said.endswith(f"\nError: {MESSAGE}\n")


def test_command_that_is_refused_ends_with_the_reason_and_a_status(bundle_root: Path) -> None:
    call = [sys.executable, "-m", "scripts.cli", "prompt", "liver", "CT", "--concepts", "shape,name"]
    done = subprocess.run(call, cwd=bundle_root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "\nError: 'name' is a key of the class itself; give the concept another name.\n"
    assert done.stdout == ""
