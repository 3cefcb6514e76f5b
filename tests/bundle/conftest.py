"""One tiny configuration of the bundle, and one training of it, for the tests of whole workflows.

Everything runs as a user runs it, by `monai.bundle.run`, from a folder that is not the bundle's: most in this
process, whose search path knows the bundle already, and what depends on that in a process of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import monai.bundle
import pytest
import yaml
from monai.utils import set_determinism

from scripts.configuration.errors import SWITCH
from scripts.training.run_lock import release_folders
from scripts.words.table import ConceptTable

Options = dict[str, Any]
EPOCHS = 4


class Trained(NamedTuple):
    """An uninterrupted training of four epochs on six cases, and the options that it was run with."""

    folder: Path
    options: Options

    @property
    def best(self) -> Path:
        return self.folder / "models" / "model.pt"

    @property
    def last(self) -> Path:
        return self.folder / "models" / "last.pt"

    @property
    def data(self) -> Path:
        return Path(self.options["dataset_dir"])


@pytest.fixture(scope="session")
def words(bundle_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom's classes with sentences short enough for a BERT that reads letters; kidneys look alike."""
    classes = ConceptTable.load(bundle_root / "configs/concepts/phantom.yaml").classes
    entries = [
        {
            "name": name,
            "shape": "A bean." if "kidney" in name else f"{name} form.",
            "location": f"Place {place}.",
        }
        for place, name in enumerate(classes)
    ]
    path = tmp_path_factory.mktemp("words") / "phantom.yaml"
    path.write_text(yaml.safe_dump({"modality": "CT", "concepts": ["shape", "location"], "classes": entries}))
    return path


@pytest.fixture(scope="session")
def tiny(tiny_bert: Path, words: Path) -> Options:
    """What makes a network of either entry file small."""
    return {
        "text_encoder": str(tiny_bert),
        "concepts_file": str(words),
        "roi_size": [64, 32, 32],
        "spacing": [8.0, 8.0, 8.0],
        "backbone#network#depths": [1, 1, 1, 1],
    }


def _arguments(bundle_root: Path, files: Sequence[str | Path], folder: Path, options: Options) -> tuple[Any, Options]:
    outputs = {"output_dir": str(folder / "runs"), "ckpt_dir": str(folder / "models")}
    paths = [str(bundle_root / "configs" / file) for file in files]
    return paths, {"bundle_root": str(bundle_root), **outputs, **options}


@pytest.fixture(scope="session")
def bundle_run(bundle_root: Path) -> Callable[..., None]:
    """`python -m monai.bundle run RUN_ID --config_file FILES`, in process, with `folder` as current folder.

    Files are names within `configs` or absolute paths. What a run leaves behind in the process (search path,
    determinism, the lock of a run that has failed) is undone.
    """

    def run(run_id: str, *files: str | Path, folder: Path, **options: Any) -> None:
        if run_id in ("evaluating", "training"):
            options = {"report": False, **options}  # a page takes seconds
        paths, arguments = _arguments(bundle_root, files, folder, options)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "path", [*sys.path])
            try:
                monai.bundle.run(run_id, config_file=paths, logging_file=False, **arguments)
            finally:
                set_determinism(None)
                release_folders()  # as the end of a process does, of a run that has failed

    return run


@pytest.fixture(scope="session")
def started(bundle_root: Path) -> Callable[..., subprocess.Popen[str]]:
    """The same in a process of its own, which does not know where the bundle is. Its stdout is the whole screen."""
    own = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", SWITCH)}

    def start(run_id: str, *files: str | Path, folder: Path, **options: Any) -> subprocess.Popen[str]:
        paths, arguments = _arguments(bundle_root, files, folder, options)
        call = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(paths)]
        call += [word for key, value in arguments.items() for word in (f"--{key}", str(value))]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        # Where tests run in the background of a shell, Ctrl-C is ignored, which a process would inherit.
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(call, cwd=folder, env=own, text=True, preexec_fn=heeding, **pipes)

    return start


@pytest.fixture(scope="session")
def trained(bundle_run: Callable[..., None], tiny: Options, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The data set is made by the run itself; six cases hold each of the phantom's orientations once."""
    folder = tmp_path_factory.mktemp("trained")
    options = {
        **tiny,
        "dataset_dir": str(folder / "data"),
        "prepare_data#num_training": 6,
        "prepare_data#num_test": 1,
        "prepare_data#progress": False,
        "num_folds": 2,
        "max_epochs": EPOCHS,
        "val_interval": 2,
    }
    bundle_run("training", "train.yaml", folder=folder, **options)
    return Trained(folder, options)


@pytest.fixture
def run(bundle_run: Callable[..., None], tmp_path: Path) -> Callable[..., None]:
    """`bundle_run` in a foreign folder that is this test's own."""

    def run_here(run_id: str, *files: str | Path, **options: Any) -> None:
        bundle_run(run_id, *files, **{"folder": tmp_path, **options})

    return run_here


@pytest.fixture
def screen(started: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Run the command in a foreign folder that is this test's own; its status, and what is left on the screen."""

    def run_to_the_end(run_id: str, *files: str | Path, **options: Any) -> tuple[int, str]:
        with started(run_id, *files, folder=tmp_path, **options) as process:
            said, _ = process.communicate()
        return process.returncode, on_screen(said)

    return run_to_the_end


def on_screen(said: str) -> str:
    """As it stands when all is over: of what a progress bar has drawn, the last state."""
    return "\n".join(line.rstrip("\r").split("\r")[-1].rstrip() for line in said.split("\n"))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it was raised from: monai.bundle wraps what its components raise."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.fixture
def failing_run(
    request: pytest.FixtureRequest, run: Callable[..., None], screen: Callable[..., tuple[int, str]]
) -> Callable[..., BaseException]:
    """Run, and return the exception of that type in the chain whose message matches; fail if there is none.

    With the parameter "as a command" it is run in a process, and the message must be the last on the screen.
    """

    def run_and_fail(kind: type[BaseException], match: str, *arguments: Any, **options: Any) -> BaseException:
        with pytest.raises(Exception) as raised:  # noqa: PT011 - its causes are looked at below
            run(*arguments, **options)
        told = list(chain(raised.value))
        found = [error for error in told if isinstance(error, kind) and re.search(match, str(error))]
        assert found, "\n".join(f"{type(error).__name__}: {error}" for error in told)
        return found[0]

    def run_and_read(kind: type[BaseException], match: str, *arguments: Any, **options: Any) -> BaseException:
        status, said = screen(*arguments, **options)
        assert status == 1
        assert "Traceback" not in said
        last = said.rstrip("\n").split("\n")[-1]
        assert last.startswith("Error: "), said
        assert re.search(match, last), last
        return kind(last)

    return run_and_read if getattr(request, "param", "") == "as a command" else run_and_fail
