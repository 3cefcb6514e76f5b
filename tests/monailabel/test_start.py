"""What `monailabel/start.sh` says before there is a server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    for name in ("configs/inference.yaml", "models/model.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """One that passes for complete."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    (folder / "installed").write_text((REPOSITORY / "monailabel/requirements.txt").read_text())
    return folder


def refused(*arguments: object, **variables: object) -> str:
    """What the script says, having failed."""
    command = [str(REPOSITORY / "monailabel/start.sh"), *map(str, arguments)]
    environ = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The folder of images is missing. Usage: "),
        (["a", "b", "c"], "Two folders at most are expected, found 3"),
        (["a", "--ports", "1"], "There is no option '--ports'"),
        (["a", "--port"], "--port needs a value"),
        (["a", "--port", "http"], "--port needs a number, found 'http'"),
        (["absent"], "There is no folder 'absent'"),
    ],
)
def test_arguments_that_cannot_be_used(arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


def test_a_bundle_that_is_absent(studies: Path, tmp_path: Path) -> None:
    assert f"There is no bundle folder '{tmp_path}/absent'" in refused(studies, tmp_path / "absent")


def test_a_folder_that_is_no_bundle(studies: Path) -> None:
    assert "is no bundle: it has no configs/inference.yaml" in refused(studies, studies)


def test_a_bundle_without_a_model(studies: Path, bundle: Path) -> None:
    (bundle / "models/model.pt").unlink()
    message = refused(studies, bundle)
    assert "models/model.pt is absent. Train one (./train.sh), or give a released bundle" in message


def test_a_name_that_cannot_be_that_of_a_model(studies: Path, bundle: Path) -> None:
    named = bundle.rename(bundle.with_name("my bundle, new"))
    assert "'my bundle, new' becomes the name of the model; rename it" in refused(studies, named)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_studies_that_cannot_be_written(studies: Path, bundle: Path) -> None:
    studies.chmod(0o555)
    assert "submitted labels are kept in it" in refused(studies, bundle)


def test_no_python(studies: Path, bundle: Path, tmp_path: Path) -> None:
    message = refused(studies, bundle, PYTHON="absent-python", BIPVL_MONAILABEL_VENV=tmp_path / "venv")
    assert "Python 3.10 to 3.12 is needed; 'absent-python' is" in message
    assert not (tmp_path / "venv").exists()


def test_a_port_in_use(studies: Path, bundle: Path, environment: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused(studies, bundle, "--port", port, BIPVL_MONAILABEL_VENV=environment)
    assert f"Port {port} of 127.0.0.1 cannot be opened: it is in use, or not allowed" in message
    assert not (environment / "apps").exists()
