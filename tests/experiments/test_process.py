from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scripts.experiments.process import Processes, locked, read_failure, termination_as_interrupt

SLEEP = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]


def begun(log: Path) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if log.is_file() and "begun" in log.read_text():
            return True
        time.sleep(0.02)
    return False


class TestRun:
    def test_status_and_log(self, tmp_path: Path) -> None:
        code = "import os, sys; print(os.environ['COLOUR']); print('bad', file=sys.stderr); sys.exit(3)"
        log = tmp_path / "x.log"
        log.write_text("before\n")
        assert Processes().run([sys.executable, "-c", code], log, {"COLOUR": "red"}) == 3
        assert sorted(log.read_text().split()) == ["bad", "before", "red"]

    def test_stopping_ends_the_child_and_starts_nothing_more(self, tmp_path: Path) -> None:
        processes, log, status = Processes(), tmp_path / "x.log", []
        thread = threading.Thread(target=lambda: status.append(processes.run(SLEEP, log, {})))
        thread.start()
        assert begun(log)
        processes.stop()
        thread.join(20)
        assert status == [-signal.SIGTERM]
        assert processes.run(SLEEP, tmp_path / "y.log", {}) == -signal.SIGTERM

    def test_a_folder_in_use_raises(self, tmp_path: Path) -> None:
        with locked(tmp_path), pytest.raises(RuntimeError, match="Another process still works in"):
            Processes().run(SLEEP, tmp_path / "x.log", {})

    def test_a_child_that_outlives_its_parent_keeps_the_folder(self, tmp_path: Path) -> None:
        parent = (
            "from pathlib import Path; from scripts.experiments.process import Processes; import sys\n"
            f"Processes().run({SLEEP!r}, Path({str(tmp_path / 'x.log')!r}), {{}})"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([sys.executable, "-c", parent], env=environment)
        assert begun(tmp_path / "x.log")
        child = _child_of(process.pid)
        process.kill()
        process.wait()
        try:
            with pytest.raises(RuntimeError, match="one that outlived its set"), locked(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_is_an_interrupt_within_the_block(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), termination_as_interrupt():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


class TestFailure:
    def test_reason_is_the_first_of_the_chain(self, tmp_path: Path) -> None:
        text = "Traceback (most recent call last):\nOldError: of an earlier attempt\nbegun again\r 1/9\r 9/9\n"
        text += "Traceback (most recent call last):\n  File x\nValueError: case_2: expected finite voxels\n\n"
        text += "The above exception was the direct cause of the following exception:\n\n"
        text += "Traceback (most recent call last):\n  File y\nRuntimeError: Failed to instantiate\n"
        (tmp_path / "x.log").write_text(text)
        reason, tail = read_failure(tmp_path / "x.log", lines=2)
        assert reason == ": ValueError: case_2: expected finite voxels"
        assert tail == "      File y\n    RuntimeError: Failed to instantiate"

    def test_of_a_progress_bar_the_last_state_is_shown(self, tmp_path: Path) -> None:
        (tmp_path / "x.log").write_text("1/9\r5/9\r9/9\nend\n")
        assert read_failure(tmp_path / "x.log") == ("", "    9/9\n    end")

    def test_no_log(self, tmp_path: Path) -> None:
        assert read_failure(tmp_path / "absent.log") == ("", "")
