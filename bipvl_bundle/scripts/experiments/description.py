"""Data classes of a set of experiments, read from YAML or arguments and validated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.experiments.nnunet.settings import nnunet_settings
from scripts.trust.parsing import check_keys, read_mapping

BUNDLE_ROOT = Path(__file__).resolve().parents[2]
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Experiment:
    """One experiment: a row of the comparison.

    Attributes:
        name: of its folder.
        title: of its row.
        overlays: config files on top of the set's base.
        options: on top of the overlays and of the set's options.
        evaluates: the experiment whose trained models are scored, under its overlays and options and then this
            one's; None to train.
        nnunet: settings of nnU-Net itself, `nnunet_settings`, which the row then is; None for a network of this bundle.
    """

    name: str
    title: str
    overlays: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    evaluates: str | None = None
    nnunet: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ExperimentSet:
    """Experiments x folds x seeds, and their common settings.

    Attributes:
        experiments: in the order of the table.
        output: one folder an experiment goes below it.
        base: config files below every experiment's overlays, the entry file first.
        evaluate: config files on top of them for evaluating.
        folds: to hold out, one run each.
        seeds: one run each. A seed also shuffles the cases into folds.
        options: of every experiment, training and evaluating.
        evaluation: options of evaluating alone.
        evaluate_on: "validation" or "test", as in `evaluate.yaml`.
        reference: the experiment that the others are tested against; None for no test.
        jobs: runs at a time.
        threads: of each run; None to leave it to PyTorch for one job, else to share the cores.
    """

    experiments: tuple[Experiment, ...]
    output: Path
    base: tuple[str, ...] = ("train.yaml",)
    evaluate: tuple[str, ...] = ("evaluate.yaml",)
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    options: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    evaluate_on: str = "validation"
    reference: str | None = None
    jobs: int = 1
    threads: int | None = None

    def find(self, name: str) -> Experiment:
        return next(experiment for experiment in self.experiments if experiment.name == name)

    def lineage(self, experiment: Experiment) -> list[Experiment]:
        """Return an experiment, preceded by the one whose models it evaluates if there is one."""
        return [*([self.find(experiment.evaluates)] if experiment.evaluates else []), experiment]

    def files(self, experiment: Experiment) -> list[Path]:
        names = [*self.base, *(name for part in self.lineage(experiment) for name in part.overlays)]
        return [config_path(name) for name in names]

    def options_of(self, experiment: Experiment) -> dict[str, Any]:
        merged = dict(self.options)
        for part in self.lineage(experiment):
            merged |= part.options
        return merged


def config_path(name: str) -> Path:
    """Return the path of a config file; a bare name is one of the bundle's `configs`."""
    path = Path(name).expanduser()
    return (BUNDLE_ROOT / "configs" / path if path.parent == Path() else path).absolute()


FIELDS = tuple(ExperimentSet.__dataclass_fields__)
ENTRY_FIELDS = tuple(name for name in Experiment.__dataclass_fields__ if name != "name")
OWN_OPTIONS = (
    "fold",
    "seed",
    "ckpt_dir",
    "output_dir",
    "metrics_dir",
    "ckpt_path",
    "evaluate_on",
    "resume",
    "overwrite",
)
MERGED = ("experiments", "options", "evaluation")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def load_set(file: str | Path | None = None, **fields: Any) -> ExperimentSet:
    """Load a set from a YAML file, from arguments, or from both; arguments win, `options` are merged.

    Args:
        file: a mapping with the fields of `ExperimentSet`. Its `experiments` are a mapping from names to a list
            of overlays or to a mapping with the fields of `Experiment`. Under `includes` it may name files of its
            folder to start from; where both have mappings, these are merged.
        fields: as in the file; None counts as not given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the description is malformed; file, field and experiment are named.
    """
    source, content = "the arguments", {}
    if file is not None:
        source, content = f"'{file}'", _read(Path(file))
    given = {name: value for name, value in fields.items() if value is not None}
    return parse_set(_merged(content, given, source), source)


def parse_set(content: Mapping[str, Any], source: str) -> ExperimentSet:
    """Build a set from a mapping; `source` names it in errors."""
    check_keys(content, known=FIELDS, where=source)
    for name in ("experiments", "output"):
        if not content.get(name):
            raise ValueError(f"{source}: '{name}' is missing. A set needs at least `experiments` and `output`.")
    entries = content["experiments"]
    if not isinstance(entries, Mapping):
        raise ValueError(
            f"{source}: 'experiments' is a {type(entries).__name__}; expected a mapping from names to overlays, "
            "such as {full: [], backbone: [baseline_backbone.yaml]}."
        )
    values: dict[str, Any] = {name: value for name, value in content.items() if value is not None}
    values["experiments"] = tuple(_experiment(source, name, entry) for name, entry in entries.items())
    values["output"] = Path(str(content["output"])).expanduser().absolute()
    for name in ("options", "evaluation"):
        values[name] = _options(source, name, content.get(name))
    for name in ("base", "evaluate"):
        if name in values:
            values[name] = _names(source, name, values[name])
    for name in ("folds", "seeds"):
        if name in values:
            values[name] = _numbers(source, name, values[name])
    described = ExperimentSet(**values)
    _check(described, source)
    return described


def _read(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no set of experiments '{path}'; expected a YAML file, see configs/experiments."
        )
    content = read_mapping(path, f"a mapping with {', '.join(FIELDS)}")
    merged: dict[str, Any] = {}
    for name in _names(f"'{path}'", "includes", content.pop("includes", ())):
        if path.parent / name in (*within, path):
            raise ValueError(f"'{path}' includes '{name}', which includes it; remove one of the two.")
        merged = _merged(merged, _read(path.parent / name, (*within, path)), f"'{path}'")
    return _merged(merged, content, f"'{path}'")


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], source: str) -> dict[str, Any]:
    merged = {**below, **above}
    for name in MERGED:
        if below.get(name) is not None and above.get(name) is not None:
            merged[name] = {**_mapping(source, name, below[name]), **_mapping(source, name, above[name])}
    return merged


def _experiment(source: str, name: Any, entry: Any) -> Experiment:
    where = f"{source}, experiment '{name}'"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{where}: expected a name of letters, digits, '_', '-' and '.', since it names a folder.")
    fields = entry if isinstance(entry, Mapping) else {"overlays": entry}
    check_keys(fields, known=ENTRY_FIELDS, where=where)
    evaluates = fields.get("evaluates")
    return Experiment(
        name=name,
        title=str(fields.get("title") or name),
        overlays=_names(where, "overlays", fields.get("overlays") or ()),
        options=_options(where, "options", fields.get("options")),
        evaluates=None if evaluates is None else str(evaluates),
        nnunet=nnunet_settings(where, fields),
    )


def _check(described: ExperimentSet, source: str) -> None:
    names = [experiment.name for experiment in described.experiments]
    folded = [name.lower() for name in names]
    clash = next((name for name in names if folded.count(name.lower()) > 1), None)
    if clash:
        raise ValueError(f"{source}: two experiments would share the folder '{clash}'; rename one.")
    trained = [e.name for e in described.experiments if e.evaluates is None and e.nnunet is None]
    for experiment in described.experiments:
        if experiment.evaluates is not None and experiment.evaluates not in trained:
            raise ValueError(
                f"{source}, experiment '{experiment.name}': it evaluates '{experiment.evaluates}'; expected an "
                f"experiment of this set that trains: {', '.join(trained) or 'none does'}."
            )
    if described.reference is not None and described.reference not in names:
        raise ValueError(f"{source}: the reference '{described.reference}' is none of {', '.join(names)}.")
    if described.evaluate_on not in SPLITS:
        raise ValueError(f"{source}: evaluate_on is '{described.evaluate_on}'; expected one of {', '.join(SPLITS)}.")
    for name, number in (("jobs", described.jobs), ("threads", described.threads)):
        if number is not None and not (_is_number(number) and number >= 1):
            raise ValueError(f"{source}: {name} is {number!r}; expected a whole number from 1.")


def _mapping(where: str, name: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: '{name}' is {value!r}; expected a mapping from config ids to values.")
    return value


def _options(where: str, name: str, value: Any) -> dict[str, Any]:
    options = {str(key): content for key, content in _mapping(where, name, value).items()}
    for key in OWN_OPTIONS:
        if key in options:
            raise ValueError(
                f"{where}: '{name}' sets '{key}', which the set gives to each run itself; use folds, seeds, output "
                "and evaluate_on of the set."
            )
    return options


def _names(where: str, name: str, value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Iterable) or isinstance(names, Mapping) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{where}: '{name}' is {value!r}; expected a list of config files.")
    return tuple(names)


def _numbers(where: str, name: str, value: Any) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not numbers or not all(_is_number(n) and n >= 0 for n in numbers) or len(set(numbers)) < len(numbers):
        raise ValueError(f"{where}: '{name}' is {value!r}; expected different whole numbers from 0, such as [0, 1, 2].")
    return numbers


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
