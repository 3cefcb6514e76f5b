"""monai.bundle's own commands on the source bundle: what they ask of it, offline."""

from __future__ import annotations

import json
import shutil
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser

from scripts.training.checkpoints import load_model

SCHEMA = Path(__file__).with_name("meta_schema_20240725.json")


@pytest.mark.filterwarnings("ignore:No hash value provided")  # the schema is a file of this folder
def test_metadata_are_verified(bundle_root: Path, tmp_path: Path) -> None:
    shutil.copyfile(SCHEMA, tmp_path / "schema.json")  # found there, it is not downloaded
    monai.bundle.verify_metadata(str(bundle_root / "configs/metadata.json"), filepath=str(tmp_path / "schema.json"))


@pytest.mark.parametrize("entry", ["train.yaml", "inference.yaml"])
def test_network_takes_and_gives_what_the_metadata_say(
    bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle_root / "configs/metadata.json"),
        config_file=str(bundle_root / "configs" / entry),
        bundle_root=str(bundle_root),
    )


def test_files_that_the_zoo_asks_for_are_there(bundle_root: Path) -> None:
    for name in (
        "LICENSE",
        "configs/metadata.json",
        "configs/inference.yaml",
        "models/model.pt",
        "docs/README.md",
        "docs/data_license.txt",
    ):
        assert (bundle_root / name).is_file()
    metadata = json.loads((bundle_root / "configs/metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]


def test_weights_of_the_embedded_default_are_of_its_network_and_words(bundle_root: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(bundle_root / "configs/inference.yaml"))
    parser["bundle_root"] = str(bundle_root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of other sentences for the same classes
        load_model(parser.get_parsed_content("network_def"), bundle_root / "models/model.pt")


def test_new_bundle_begins_with_the_weights(make_network: Callable[..., Any], tmp_path: Path) -> None:
    network = make_network(seed=1)
    monai.bundle.init_bundle(tmp_path / "mine", network=network)
    again = load_model(make_network(seed=2), tmp_path / "mine/models/model.pt")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_mlflow_tracks_the_loss_its_terms_and_the_scores(
    run: Callable[..., None], trained: Any, tmp_path: Path
) -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason="tracking is optional: pip install mlflow")
    run("training", "train.yaml", **{**trained.options, "max_epochs": 1, "val_interval": 1}, tracking="mlflow")
    with sqlite3.connect(tmp_path / "runs/mlruns.db") as database:
        tracked = database.execute("select key, value, step from metrics").fetchall()
    losses = [value for key, value, _ in tracked if key == "train_loss"]
    iterations = [step for key, _, step in tracked if key == "lr_group_0"]
    assert iterations == [1, 2, 3]
    assert len(losses) == 4  # of each iteration, and of the epoch
    assert losses[3] == pytest.approx(sum(losses[:3]) / 3)
    names = {key for key, _, _ in tracked}
    assert {"val_mean_dice", "dice_liver", "train_weight_alignment", "train_cosine_vision", "learning_rate"} <= names
