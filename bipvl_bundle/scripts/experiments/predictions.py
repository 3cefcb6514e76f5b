"""The command `score_predictions`: scores a folder of predictions of any program like a run of this bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from scripts.configuration.check import check_config
from scripts.configuration.plan import versions
from scripts.data.cases import Item, case_of
from scripts.data.loading import load_volume
from scripts.experiments.compare import PER_CASE
from scripts.experiments.description import BUNDLE_ROOT, SPLITS, config_path
from scripts.experiments.records import code_digest, digest, write_json
from scripts.experiments.steps import MARKER, run_folder
from scripts.metrics import SegmentationMetricsHandler
from scripts.trust.plain import require_name

SUFFIXES = (".nii.gz", ".nii", "_seg.nii.gz")
LABELS = ("classes", "files")


def score_predictions(
    predictions: str,
    config_file: Sequence[str] | str,
    output: str,
    *,
    name: str = "predictions",
    title: str | None = None,
    evaluate_on: str = "validation",
    fold: int = 0,
    seed: int = 0,
    labels: str = "classes",
    nsd_tolerance: float = 2.0,
    **options: Any,
) -> None:
    """Score a folder of predictions with this bundle's metrics, and keep the scores so that `compare` reads them.

        python -m scripts.cli score_predictions PREDICTIONS "['train.yaml','dataset_amos22.yaml']" runs/compared \\
            --name totalsegmentator --evaluate_on test

    A prediction is CASE.nii.gz (or CASE.nii, CASE_seg.nii.gz), CASE the case's name in the datalist, on the grid of
    the case's label file. The scores go to OUTPUT/NAME/foldN_seedN/SPLIT, where `experiments` would put a run's;
    OUTPUT may be the folder of a set.

    Args:
        predictions: folder of label maps, or of files with one channel a region where regions overlap
        config_file: entry file and data set's overlay, for the classes, the cases and their folds
        output: folder of a set of experiments, or any other
        name: of the row's folder
        title: of the row; the name by default
        evaluate_on: validation (the fold held out) or test
        fold: the fold held out
        seed: that split the cases into folds
        labels: classes: values are the classes' numbers in the concept table, or there is a channel a region. files:
            values are those of the data set's own label files. A JSON file with "labels" {name: value}, such as
            nnU-Net's dataset.json: the classes by their names there
        nsd_tolerance: in millimetres
        options: further options of the configuration, such as --dataset_dir data/mine
    """
    if evaluate_on not in SPLITS:
        raise ValueError(f"evaluate_on is '{evaluate_on}'; expected one of {', '.join(SPLITS)}.")
    files = [config_file] if isinstance(config_file, str) else list(config_file)
    paths = [str(config_path(file)) for file in (*files, "evaluate.yaml")]
    settings = {"bundle_root": str(BUNDLE_ROOT), **options, "evaluate_on": evaluate_on, "fold": fold, "seed": seed}
    problems = check_config(paths, **settings)
    if problems:
        raise ValueError("The configuration has problems; nothing was scored: " + "; ".join(problems))
    parser = ConfigParser(ConfigParser.load_config_files(paths))
    parser.update(settings)
    items: list[Item] = parser.get_parsed_content("validate#dataset#data")
    found = find_predictions(Path(predictions).expanduser(), [case_of(item) for item in items])
    folder = run_folder(Path(output).expanduser(), require_name(name, "`name`"), fold, seed) / evaluate_on
    scorer = SegmentationMetricsHandler(
        parser.get_parsed_content("class_names"),
        softmax=parser.get_parsed_content("softmax"),
        nsd_tolerance=nsd_tolerance,
        output_dir=folder,
    )
    read = PredictionReader(parser, labels)
    scorer.reset()
    for item in items:
        scorer.update(read(item, found[case_of(item)]))
    scorer.compute()
    _write_marker(folder, {"experiment": name, "title": title or name, "fold": fold, "seed": seed}, evaluate_on)
    print(f"Written to {folder / PER_CASE}; `compare {output}` reads it")


def find_predictions(folder: Path, cases: Sequence[str]) -> dict[str, Path]:
    """Return the file of each case in a folder.

    Raises:
        FileNotFoundError: the folder or a case's file is absent; none is scored then, since a missing file is no
            segmentation without classes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of predictions '{folder}'.")
    found: dict[str, Path] = {}
    for case in cases:
        files = [path for suffix in SUFFIXES if (path := folder / f"{case}{suffix}").is_file()]
        found |= {case: files[0]} if files else {}
    lacking = [case for case in cases if case not in found]
    if lacking:
        raise FileNotFoundError(
            f"'{folder}' lacks {len(lacking)} of {len(cases)} cases: {', '.join(lacking[:4])}"
            f"{', ...' if len(lacking) > 4 else ''}. Expected CASE.nii.gz, CASE.nii or CASE_seg.nii.gz, named "
            "as in the datalist. Nothing was scored."
        )
    return found


class PredictionReader:
    """Reads the prediction and the reference of a case as the metrics take them.

    Args:
        parser: the configuration.
        labels: see `score_predictions`.

    Raises:
        ValueError: ``labels`` is none of its values, or its file does not name every class; at a call, a file with
            several channels whose values are to be named.
    """

    def __init__(self, parser: ConfigParser, labels: str) -> None:
        self.softmax: bool = parser.get_parsed_content("softmax")
        self.classes = [str(name) for name in parser.get_parsed_content("class_names")]
        self.map_labels = Compose(parser.get_parsed_content("label_transforms"))
        self.as_files = labels == "files"
        self.values = None if labels in LABELS else label_values(Path(labels), self.classes)

    def __call__(self, item: Item, prediction: Path) -> dict[str, Any]:
        reference = self.map_labels({"reference": load_volume(item["reference"])})["reference"]
        found = load_volume(prediction)
        if self.as_files:
            found = self.map_labels({"reference": found})["reference"]
        elif self.values is not None:
            found = self._numbered(found, prediction)
        return {"case": case_of(item), "pred": found, "label": reference}

    def _numbered(self, found: MetaTensor, path: Path) -> MetaTensor:
        """Give the classes of a label map the numbers of the concept table, or a channel each."""
        if len(found) != 1:
            raise ValueError(f"'{path}' has {len(found)} channels; values can be named in a label map of one alone.")
        masks = [torch.isin(found.as_tensor(), torch.tensor(values, dtype=found.dtype)) for values in self.values or ()]
        if not self.softmax:
            return MetaTensor(torch.cat(masks).to(torch.uint8), affine=found.affine)
        numbered = torch.zeros_like(found.as_tensor(), dtype=torch.int64)
        for number, mask in enumerate(masks, start=1):
            numbered[mask] = number
        return MetaTensor(numbered, affine=found.affine)


def label_values(path: Path, classes: Sequence[str]) -> list[list[int]]:
    """Return the values of each class in a JSON file's "labels": {name: value or list of values}.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it names a class not at all.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no '{path}'. `labels` is {', '.join(LABELS)}, or a JSON file with 'labels'.")
    content = json.loads(path.read_text(encoding="utf-8"))
    named = content.get("labels") if isinstance(content, Mapping) else None
    named = {str(name).lower(): value for name, value in named.items()} if isinstance(named, Mapping) else {}
    lacking = [name for name in classes if name.lower() not in named]
    if lacking:
        raise ValueError(f"'labels' in '{path}' has {', '.join(named) or 'nothing'}; it lacks {', '.join(lacking)}.")
    found = [named[name.lower()] for name in classes]
    return [[int(v) for v in value] if isinstance(value, list) else [int(value)] for value in found]


def _write_marker(folder: Path, facts: Mapping[str, Any], evaluate_on: str) -> None:
    """Write what `compare` reads of a run, after the rows that the set has already."""
    markers = folder.parents[2].glob(f"*/fold*_seed*/*/{MARKER}")
    others = [json.loads(path.read_text(encoding="utf-8")) for path in markers]
    others = [record for record in others if record["experiment"] != facts["experiment"]]
    position = 1 + max((record["position"] for record in others), default=-1)
    facts = {**facts, "position": position, "evaluate_on": evaluate_on, "reference": None, "parameters": None}
    write_json(folder / MARKER, {**facts, "digest": digest(facts), "code": code_digest(), "versions": versions()})
