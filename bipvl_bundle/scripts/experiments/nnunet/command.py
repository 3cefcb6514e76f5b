"""The command `nnunet`: plans, trains, predicts and scores with the real nnU-Net."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from scripts.data.cases import case_of
from scripts.data.datalist import training_items, validation_items
from scripts.experiments.cost import COST
from scripts.experiments.description import BUNDLE_ROOT, config_path
from scripts.experiments.nnunet.dataset import SUFFIX, channel_files, region_masks, write_dataset
from scripts.experiments.nnunet.environment import ENVIRONMENT, ensure_environment
from scripts.experiments.predictions import score_predictions
from scripts.whole_file import write_text

DATASET = "Dataset501_Bundle"
CONFIGURATION = "3d_fullres"


def run_nnunet(
    config_file: Sequence[str] | str,
    output: str,
    *,
    epochs: int = 1000,
    iterations: int = 250,
    fold: int = 0,
    seed: int = 0,
    evaluate_on: str = "validation",
    name: str = "nnunet",
    title: str = "nnU-Net",
    mirror: bool = True,
    environment: str = ENVIRONMENT,
    device: str | None = None,
    **options: Any,
) -> None:
    """Train nnU-Net itself on a data set and fold of this bundle, predict, and score its predictions like a run.

        python -m scripts.cli nnunet "['train.yaml','dataset_hippocampus.yaml']" runs/experiments/mine --epochs 4

    nnU-Net chooses patch, spacing, batch and network by its own plan. It lives in an environment of its own, which the
    first call makes (3 GB). Called again, what is complete is skipped and a stopped training goes on. Everything is in
    OUTPUT/NAME/foldN_seedN, and `compare OUTPUT` shows it beside other runs.

    Args:
        config_file: entry file and data set's overlay, for the classes, the cases and their folds
        output: folder of a set of experiments, or any other
        epochs: of the training; nnU-Net's own are 1000
        iterations: of an epoch
        fold: the fold held out
        seed: that split the cases into folds
        evaluate_on: validation (the fold held out) or test
        name: of the row's folder
        title: of the row
        mirror: whether images are mirrored along all axes, nnU-Net's default; False where left and right are classes
        environment: folder of the environment
        device: cuda or cpu; by default what there is
        options: further options of the configuration, such as --dataset_dir data/mine
    """
    python = ensure_environment(Path(environment).expanduser().absolute())
    folder = Path(output).expanduser().absolute() / name / f"fold{fold}_seed{seed}"
    files = [config_file] if isinstance(config_file, str) else list(config_file)
    parser = ConfigParser(ConfigParser.load_config_files([str(config_path(f)) for f in (*files, "evaluate.yaml")]))
    parser.update({"bundle_root": str(BUNDLE_ROOT), **options, "fold": fold, "seed": seed, "evaluate_on": evaluate_on})
    softmax = bool(parser.get_parsed_content("softmax"))
    split = _write(parser, folder / "raw" / DATASET, softmax, fold, seed)
    variables = _variables(folder)
    if not (folder / "preprocessed" / DATASET / "nnUNetPlans.json").is_file():
        planner = python.parent / "nnUNetv2_plan_and_preprocess"
        few = ["-np", "1", "-npfp", "1", "--verify_dataset_integrity"]
        _call([str(planner), "-d", "501", "-c", CONFIGURATION, *few], variables)
    write_text(folder / "preprocessed" / DATASET / "splits_final.json", json.dumps([split]))
    predictions = folder / "predictions"
    predictions.mkdir(exist_ok=True)
    items = parser.get_parsed_content("validate#dataset#data")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cases = [{"images": channel_files(item), "prediction": str(predictions / case_of(item))} for item in items]
    job = {"dataset": "501", "configuration": CONFIGURATION, "epochs": epochs, "iterations": iterations}
    job |= {"mirror": mirror, "regions": not softmax, "device": device, "cases": cases}
    job["cost"] = str(folder / COST)
    write_text(folder / "job.json", json.dumps(job, indent=2))
    _call([str(python), str(Path(__file__).with_name("driver.py")), str(folder / "job.json")], variables)
    if not softmax:
        for case in cases:
            path = Path(f"{case['prediction']}{SUFFIX}")
            region_masks(path.with_name(path.name.removesuffix(SUFFIX) + ".npz"), path, path)
    settings: dict[str, Any] = {"name": name, "title": title, "evaluate_on": evaluate_on, "fold": fold, "seed": seed}
    score_predictions(str(predictions), files, output, **settings, **options)


def _write(parser: ConfigParser, folder: Path, softmax: bool, fold: int, seed: int) -> dict[str, list[str]]:
    source = parser.get_parsed_content("prepare_data") or parser.get_parsed_content("dataset_dir")
    folds = int(parser.get_parsed_content("num_folds"))
    return write_dataset(
        folder,
        training=training_items(source, fold, folds, seed),
        validation=validation_items(source, fold, folds, seed),
        class_names=parser.get_parsed_content("class_names"),
        softmax=softmax,
        label_transforms=parser.get_parsed_content("label_transforms"),
        modality=parser.get_parsed_content("concept_table").modality,
    )


def _variables(folder: Path) -> dict[str, str]:
    """Where nnU-Net keeps its files, and few processes."""
    places = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    return {**os.environ, **places, "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}


def _call(command: Sequence[str], variables: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=dict(variables), check=False)
    if done.returncode:
        raise RuntimeError(f"nnU-Net ended with status {done.returncode}; see above what it says. The call: {command}")
