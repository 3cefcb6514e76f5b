from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.whole_file import ABANDONED, _clear_remains, digest_of, partial_name, whole_file

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from scripts.whole_file import digest_of, whole_file
for _ in range(300):
    with whole_file(Path(sys.argv[2])) as part:
        part.write_text(sys.argv[3] * 10000)
"""


def test_replaces_what_was_there_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "table.nii.gz"
    path.write_text("old")
    with whole_file(path) as part:
        assert part.name.endswith("table.nii.gz")
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half() -> None:
        with whole_file(path) as part:
            part.write_text("ne")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_may_write_the_same_file(bundle_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "comparison.md"
    command = [sys.executable, "-c", WRITER, str(bundle_root), str(path)]
    processes = [subprocess.Popen([*command, letter], stderr=subprocess.PIPE, text=True) for letter in "ab"]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert path.read_text() in ("a" * 10000, "b" * 10000)
    assert list(tmp_path.iterdir()) == [path]


def test_threads_of_one_process_may_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "comparison.md"

    def write(letter: str) -> None:
        for _ in range(50):
            with whole_file(path) as part:
                part.write_text(letter * 10000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    assert set(path.read_text()) in ({"a"}, {"b"}, {"c"}, {"d"})
    assert list(tmp_path.iterdir()) == [path]


def test_name_at_the_limit_of_the_file_system_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * (255 - 11) + "_seg.nii.gz")
    with whole_file(path) as part:
        assert part.name.endswith("_seg.nii.gz")
        part.write_text("whole")
    assert path.read_text() == "whole"


def test_what_a_killed_process_has_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from scripts.whole_file import whole_file
with whole_file(Path(sys.argv[2])) as part:
    part.write_text("half")
    os.kill(os.getpid(), 9)
"""
    root = Path(__file__).resolve().parents[1] / "bipvl_bundle"
    killed = subprocess.run([sys.executable, "-c", program, str(root), str(tmp_path / "a.csv")], check=False)
    assert killed.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".partial-")
    own = partial_name(tmp_path / "b.csv")
    foreign, old = tmp_path / ".partial-0123abcd-1-ef-c.csv", tmp_path / ".partial-0123abcd-1-ef-d.csv"
    for path in (own, foreign, old):
        path.write_text("half")
    os.utime(old, (time.time() - 2 * ABANDONED,) * 2)
    _clear_remains.cache_clear()
    with whole_file(tmp_path / "a.csv") as part:
        part.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", own.name, foreign.name}


def test_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_of(tmp_path / "a").startswith("ba7816bf8f01cfea")
    assert digest_of(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"
