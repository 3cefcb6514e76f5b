from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.whole_file import digest_of, whole_file

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


def test_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_of(tmp_path / "a").startswith("ba7816bf8f01cfea")
    assert digest_of(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"
