"""One step of a run, training or evaluating: its command, its identity, and its completion marker."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai.bundle import ComponentLocator, ConfigParser

from scripts.configuration.plan import versions
from scripts.data.cases import Item, case_of, files_of
from scripts.data.splits import require_fold
from scripts.experiments.description import BUNDLE_ROOT
from scripts.experiments.records import code_digest, differences, digest, write_json
from scripts.whole_file import digest_of

CONFIGURATION = "configuration.json"
ARGUMENTS = "arguments.json"
MARKER = "run.json"
# Where a run is and how fast it goes, as against what it computes.
PLACES = ("bundle_root", "ckpt_dir", "output_dir", "metrics_dir", "predictions_dir", "ckpt_path")
INCIDENTAL = (*PLACES, "resume", "overwrite", "device", "num_workers", "cache_rate")
LOCATOR = ComponentLocator()  # its table of MONAI's classes is as slow to make as a config file to read
TRAINED_ON, SCORED = "train#dataset#data", "validate#dataset#data"
# What a step reads: validation chooses the epoch that a training keeps.
DATA = {
    "training": {"cases": TRAINED_ON, "validation_cases": SCORED},
    "evaluating": {"cases": SCORED},
    "nnunet": {"cases": SCORED, "training_cases": TRAINED_ON},
}

Identity = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One call of ``monai.bundle run``, or of another program, in a folder of its own.

    The folder holds `configuration.json` (the merged configuration, the words and the cases, written before the
    start), `arguments.json` (all that the call needs), the log, the step's products, and at last `run.json`.

    Attributes:
        run_id: "training", "evaluating", or "nnunet", which is both.
        folder: of the step.
        files: the config files.
        options: on top of them.
        product: the file that a completed step has made.
        needs: the step whose product it reads.
    """

    run_id: str
    folder: Path
    files: tuple[Path, ...]
    options: Mapping[str, Any]
    product: Path
    needs: Step | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.run_id}.log"

    @property
    def marker(self) -> Path:
        return self.folder / MARKER

    @property
    def resumable(self) -> bool:
        return self.run_id == "training" and (self.folder / "last.pt").is_file()

    @property
    def obstacle(self) -> str | None:
        """Why the step cannot be run on this machine; None if it can."""
        return None

    def parser(self) -> ConfigParser:
        parser = ConfigParser()
        parser.locator = LOCATOR
        parser.read_config([str(path) for path in self.files])
        parser.update(dict(self.options))
        return parser

    def settings(self) -> Identity:
        """Return the part of `identity` that needs no data: the merged configuration and the words.

        Raises:
            FileNotFoundError: the words are absent.
            ValueError: a fold that does not exist.
        """
        return _settings(self.parser())

    def identity(self) -> Identity:
        """Return what decides the step's result: the merged configuration, the words, and the cases with their files.

        Makes the data set where the configuration has one made. Code is not part of it, see `code_digest`; nor is
        what stands in the files.

        Raises:
            FileNotFoundError: no data set, a file of it or the words are absent.
            ValueError: a fold that does not exist, or another fault of the datalist.
        """
        parser = self.parser()
        found = _settings(parser)
        parser.get_parsed_content("prepare_data")
        return found | {key: _cases(parser.get_parsed_content(id)) for key, id in DATA[self.run_id].items()}

    def check_folder(self, identity: Identity) -> None:
        """Raise an error if the folder holds another step.

        Args:
            identity: of this step, or its `settings` for what can be known without data.

        Raises:
            ValueError: the folder's configuration is another; the differing ids are named.
            FileExistsError: the folder is not that of a step.
        """
        path = self.folder / CONFIGURATION
        if path.is_file():
            written = json.loads(path.read_text(encoding="utf-8"))["identity"]
            ids = list(differences({key: value for key, value in written.items() if key in identity}, identity))
            if ids:
                raise ValueError(
                    f"'{self.folder}' is the folder of another configuration: {'; '.join(ids[:6])}"
                    f"{'; ...' if len(ids) > 6 else ''}. Nothing in it was changed. Choose another `output`, restore "
                    "the configuration, or remove the folder to run it anew."
                )
        elif self.folder.is_dir() and any(p.is_file() and p.name != ".lock" for p in self.folder.iterdir()):
            raise FileExistsError(
                f"'{self.folder}' holds files and no {CONFIGURATION}: it is not the folder of a run. Choose another "
                "`output`, or move its content away."
            )

    def is_done(self) -> bool:
        """Return whether marker and product are there, and the marker is of the present model."""
        if not (self.marker.is_file() and self.product.is_file()):
            return False
        if self.needs is None:
            return True
        return self.needs.marker.is_file() and self.read_marker().get("model") == digest_of(self.needs.marker)

    def read_marker(self) -> dict[str, Any]:
        return json.loads(self.marker.read_text(encoding="utf-8"))

    def start(self, identity: Identity) -> list[str]:
        """Write the step's records into its folder and return the command that runs it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.marker.unlink(missing_ok=True)
        write_json(self.folder / CONFIGURATION, {"digest": digest(identity), "identity": identity})
        write_json(self.folder / ARGUMENTS, self.arguments())
        return self.command()

    def arguments(self) -> dict[str, Any]:
        """Return all that the call needs, which ``ARGUMENTS`` holds."""
        return {**self.options, "config_file": [str(path) for path in self.files]}

    def command(self) -> list[str]:
        """Return the command that runs the step by its ``ARGUMENTS``, as of now: beginning or resuming."""
        arguments = str(self.folder / ARGUMENTS)
        command = [sys.executable, "-m", "monai.bundle", "run", self.run_id, "--args_file", arguments]
        if self.run_id != "training":
            return command
        return [*command, "--resume" if self.resumable else "--overwrite", "True"]  # the folder is this step's own

    def finish(self, identity: Identity, command: list[str], **facts: Any) -> None:
        """Write the completion marker.

        Raises:
            FileNotFoundError: the command has ended well and not made what it was to make.
        """
        if not self.product.is_file():
            raise FileNotFoundError(f"The step ended well, yet there is no '{self.product}'; see '{self.log}'.")
        record = {
            **facts,
            "digest": digest(identity),
            "command": shlex.join(command),
            "code": code_digest(),
            "versions": versions(),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        if self.needs is not None:
            record["model"] = digest_of(self.needs.marker)
        write_json(self.marker, record)


def _settings(parser: ConfigParser) -> Identity:
    require_fold(parser.get_parsed_content("fold"), parser.get_parsed_content("num_folds"))
    content = {key: value for key, value in parser.get().items() if key not in INCIDENTAL}
    content = json.loads(json.dumps(content, default=str))  # as it will be read again
    return {"configuration": content, "words": parser.get_parsed_content("concept_table").digest}


def _cases(items: Sequence[Item]) -> dict[str, list[str]]:
    """Return the files of each case, relative to the bundle if within it, so that both can be moved together."""

    def written(path: Path) -> str:
        return str(path.relative_to(BUNDLE_ROOT) if path.is_relative_to(BUNDLE_ROOT) else path)

    files = {case_of(item): [written(Path(path)) for _, path in files_of(item)] for item in items}
    return dict(sorted(files.items()))


def run_folder(output: Path, name: str, fold: int, seed: int) -> Path:
    """Return the folder of an experiment's run on one fold with one seed."""
    return output / name / f"fold{fold}_seed{seed}"
