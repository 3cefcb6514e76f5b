"""Several data sets for one training, each with its own files, labels, words and preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.transforms import Compose

from scripts.configuration.lint import nearest_id
from scripts.configuration.plan import plan_of
from scripts.data.cases import Item, case_of
from scripts.data.image_kind import DATA_SET
from scripts.data.partial_labels import LabelsAmongd
from scripts.messages.phrases import root_cause
from scripts.words.joined import joined_table
from scripts.words.table import ConceptTable

__all__ = ["SeveralDataSets"]

ENTRY = "train.yaml"
OWN_KEYS = ("overlays", "labels", "part")


@dataclass(frozen=True)
class _DataSet:
    concepts: ConceptTable
    labels: Sequence[str] | None
    softmax: bool
    in_channels: int
    transforms: Sequence[Callable[..., Any]]
    training: list[Item]
    validation: list[Item]
    plan: dict[str, Any]


class SeveralDataSets:
    """Several data sets for one training: all their classes, and their cases, each preprocessed as its data set says.

    A data set is described as a training on it alone would be, by overlays on `train.yaml`. From that description come
    its words, its cases and their split, and its preprocessing. All else, such as the patch, is that of the run.

    Args:
        data_sets: by a name for each, a mapping with

            - ``overlays``: the files beside `train.yaml` that describe it, such as `dataset_hippocampus.yaml`;
            - ``labels``: the classes that its files label wherever they stand; left out: all of its concept table;
            - ``part``: [i, n] takes every n-th of its cases from number i on, as to see what fewer labels cost;
            - any setting of `train.yaml` by name, such as ``dataset_dir`` or ``num_folds``.
        config_dir: the folder of `train.yaml` and the overlays.
        shared: settings of the run that each data set has unless it says otherwise, such as the fold.
        balanced: cases of smaller data sets are repeated in an epoch until each data set has nearly as many.

    Attributes:
        concepts: the table of all classes.
        training: cases, each with its data set's name under ``data_set`` and before its own.
        validation: likewise.
        preprocessing: the transform of a case; its labels are numbered among all classes (`LabelsAmongd`).
        plans: by data set, how its images are preprocessed.

    Raises:
        FileNotFoundError: an overlay, a folder or a file of a data set is absent.
        ValueError: a description is none, or sets what `train.yaml` does not know; data sets differ in ``softmax`` or
            in ``in_channels``; what `joined_table` raises. Each message names the data set.
    """

    def __init__(
        self,
        data_sets: Mapping[str, Mapping[str, Any]],
        config_dir: str | Path,
        shared: Mapping[str, Any] | None = None,
        *,
        balanced: bool = True,
    ) -> None:
        if not isinstance(data_sets, Mapping) or not data_sets:
            raise ValueError(f"`data_sets` is {data_sets!r}; expected {{name: {{overlays: [dataset_x.yaml]}}, ...}}.")
        found = {
            str(name): _read(str(name), entry, Path(config_dir), shared or {}) for name, entry in data_sets.items()
        }
        for key in ("softmax", "in_channels"):
            values = {name: getattr(data_set, key) for name, data_set in found.items()}
            if len(set(values.values())) > 1:
                raise ValueError(f"Data sets that are learnt together need one `{key}`; found {values}.")
        self.concepts = joined_table({name: data_set.concepts for name, data_set in found.items()})
        self.preprocessing = _ByDataSet(
            {name: Compose([*part.transforms, _numbering(part, self.concepts)]) for name, part in found.items()}
        )
        training = {name: _named(name, data_set.training) for name, data_set in found.items()}
        largest = max(map(len, training.values()))
        repeats = {name: round(largest / len(items)) if balanced else 1 for name, items in training.items()}
        self.training = [item for name, items in training.items() for item in items * repeats[name]]
        self.validation = [item for name, data_set in found.items() for item in _named(name, data_set.validation)]
        self.plans = {name: data_set.plan for name, data_set in found.items()}


class _ByDataSet:
    """Transform that treats each case as its data set says."""

    def __init__(self, transforms: Mapping[str, Compose]) -> None:
        self.transforms = dict(transforms)

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        return self.transforms[data[DATA_SET]](data)


def _numbering(data_set: _DataSet, concepts: ConceptTable) -> LabelsAmongd:
    own = data_set.concepts.classes
    return LabelsAmongd("label", own, concepts.classes, data_set.labels, softmax=data_set.softmax)


def _named(name: str, items: Sequence[Item]) -> list[Item]:
    return [{**item, DATA_SET: name, "case": f"{name}_{case_of(item)}"} for item in items]


def _read(name: str, entry: Any, config_dir: Path, shared: Mapping[str, Any]) -> _DataSet:
    where = f"Data set '{name}' of `data_sets`"
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is {entry!r}; expected a mapping such as {{overlays: [dataset_x.yaml]}}.")
    settings = {key: value for key, value in entry.items() if key not in OWN_KEYS}
    try:
        part = _part(entry.get("part"))
        parser = _parser(config_dir, entry.get("overlays") or [], shared, settings)
        return _DataSet(
            labels=entry.get("labels"),
            concepts=parser.get_parsed_content("concept_table"),
            softmax=parser.get_parsed_content("softmax"),
            in_channels=parser.get_parsed_content("in_channels"),
            transforms=parser.get_parsed_content("preprocessing_transforms"),
            training=parser.get_parsed_content("train#dataset#data")[part],
            validation=parser.get_parsed_content("validate#dataset#data")[part],
            plan=plan_of(parser.get(), roots=["dataset_name", "preprocessing_transforms"]),
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = root_cause(error)
        kind = FileNotFoundError if isinstance(reason, OSError) else ValueError
        raise kind(f"{where}: {reason}") from error


def _part(value: Any) -> slice:
    if value is None:
        return slice(None)
    if not isinstance(value, list) or len(value) != 2 or not all(type(number) is int for number in value):
        raise ValueError(f"`part` is {value!r}; expected [i, n], two whole numbers.")
    first, step = value
    if not 0 <= first < step:
        raise ValueError(f"`part` is {value!r}; expected [i, n] with i from 0 to n - 1.")
    return slice(first, None, step)


def _parser(
    config_dir: Path, overlays: Sequence[str], shared: Mapping[str, Any], settings: Mapping[str, Any]
) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(config_dir / file) for file in (ENTRY, *overlays)])
    for key in settings:
        if key not in parser:
            near = nearest_id(str(key), [parser])
            raise ValueError(f"{ENTRY} has no setting '{key}'; the nearest is '{near}'.")
    parser.update({**shared, **settings})
    return parser
