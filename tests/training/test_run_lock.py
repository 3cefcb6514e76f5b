"""One training at a time in a folder, whatever becomes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.training import run_lock
from scripts.training.run_lock import LOCK, lock_folder, release_folders

HOLDER = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("run_lock", sys.argv[1])  # without the packages of `training`
run_lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_lock)
run_lock.lock_folder(sys.argv[2])
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    yield
    release_folders()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until it reads a line."""
    command = [sys.executable, "-c", HOLDER, run_lock.__file__, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_training_is_refused_by_name(other: subprocess.Popen[str], tmp_path: Path) -> None:
    message = rf"Another training writes to '{tmp_path}' \(process {other.pid} of .*, since .*--output_dir"
    with pytest.raises(RuntimeError, match=message):
        lock_folder(tmp_path)
    lock_folder(tmp_path / "another")


def test_folder_is_free_after_the_end(other: subprocess.Popen[str], tmp_path: Path) -> None:
    other.communicate("\n")
    assert not (tmp_path / LOCK).exists()
    lock_folder(tmp_path)


def test_folder_is_free_after_a_kill(other: subprocess.Popen[str], tmp_path: Path) -> None:
    other.kill()
    other.wait()
    assert (tmp_path / LOCK).exists()
    lock_folder(tmp_path)
    release_folders()
    assert not any(tmp_path.iterdir())


def test_process_may_begin_anew_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock_folder(tmp_path)
    lock_folder(tmp_path)
    monkeypatch.setattr(run_lock, "_held", {})  # an annotation server drops the modules
    lock_folder(tmp_path)


def test_other_processes_of_one_training_need_no_lock(
    other: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    lock_folder(tmp_path)


def test_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run_lock, "fcntl", None)
    lock_folder(tmp_path)
    assert f"'{tmp_path}' cannot be locked" in caplog.text
    assert not (tmp_path / LOCK).exists()
