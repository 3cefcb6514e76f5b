"""A released bundle carries the code that it reaches, and no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.release.reach import ALWAYS, imports_of, names_in, reached_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bundle in which everything that always ships is empty."""
    files = {f"{name.replace('.', '/')}.py": "" for name in ALWAYS[1:]}
    files |= {
        "scripts/room/used.py": "from scripts.room import helper\nimport scripts.other.deep\nimport torch\n",
        "scripts/room/helper.py": "def f():\n    from scripts.whole import g\n",
        "scripts/other/deep.py": "",
        "scripts/whole.py": "from scripts.room.used import thing  # a circle\n",
        "scripts/room/unused.py": "",
        "scripts/unused/far.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in [tmp_path / "scripts", *(path for path in tmp_path.rglob("scripts/**/*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    return tmp_path


def reached(root: Path, text: str) -> set[str]:
    (root / "a.yaml").write_text(text)
    found = {path.relative_to(root / "scripts").as_posix() for path in reached_files(root, [root / "a.yaml"])}
    always = {path.relative_to(root / "scripts").as_posix() for path in reached_files(root, [])}
    return found - always


def test_follows_imports_from_what_a_configuration_names(root: Path) -> None:
    found = reached(root, "x: {_target_: scripts.room.used.Class}\n")
    assert found == {
        *("room/__init__.py", "room/used.py", "room/helper.py"),
        *("other/__init__.py", "other/deep.py", "whole.py"),
    }


def test_a_package_is_reached_by_what_it_exports(root: Path) -> None:
    (root / "scripts/room/__init__.py").write_text("from scripts.room.unused import Class\n")
    assert reached(root, "x: $scripts.room.Class()\n") == {"room/__init__.py", "room/unused.py"}


def test_comments_name_nothing(root: Path) -> None:
    assert names_in("a: b # see scripts.room.used\n# scripts.room.unused\nc: 'x#scripts.whole.f'") == [
        "scripts.whole.f"
    ]


def test_name_that_leads_nowhere_raises(root: Path) -> None:
    with pytest.raises(ValueError, match=r"'scripts\.rom\.used\.Class' leads to no module"):
        reached(root, "x: {_target_: scripts.rom.used.Class}\n")


class TestReleasedBundle:
    def test_reaches_nothing_that_it_lacks(self, bundle: Path) -> None:
        files = {path for path in bundle.rglob("scripts/**/*") if path.is_file() and "__pycache__" not in path.parts}
        assert set(reached_files(bundle, [*bundle.glob("configs/*.yaml"), bundle / "configs/infer.json"])) == files
        modules = [file for file in files if file.suffix == ".py"]
        assert all(name.startswith("scripts.") for file in modules for name in imports_of(file))

    def test_has_the_templates_of_its_page(self, bundle: Path) -> None:
        assert (bundle / "scripts/report/templates/page.html.j2").is_file()
        assert (bundle / "scripts/report/niivue/LICENSE").is_file()

    @pytest.mark.parametrize(
        "absent",
        [
            *("benchmark", "experiments", "release", "report/command.py", "data/phantom", "data/own"),
            *("words/chat.py", "words/writer.py", "words/encoder_maker.py", "words/encoder_pretraining.py"),
        ],
    )
    def test_lacks_what_made_it(self, bundle: Path, absent: str) -> None:
        assert not (bundle / "scripts" / absent).exists()

    def test_lists_the_commands_of_a_model(self, bundle: Path) -> None:
        command = [sys.executable, "-B", "-m", "scripts.cli", "--help"]
        said = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=True).stdout
        for name in (
            "check",
            "check_data",
            "datalist",
            "describe_export",
            "export_model",
            "segment_dicom",
            "try_words",
        ):
            assert f"\n  {name}\n" in said
        assert "experiments" not in said

    @pytest.mark.slow
    def test_its_commands_can_be_loaded(self, bundle: Path) -> None:
        code = "from scripts.cli import COMMANDS, load_command; print(len([load_command(name) for name in COMMANDS]))"
        done = subprocess.run([sys.executable, "-B", "-c", code], cwd=bundle, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == "7"
