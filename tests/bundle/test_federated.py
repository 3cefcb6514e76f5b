"""Federated training by MONAI's client, two clients that share a model and no data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from scripts.data.phantom.dataset import make_phantom
from scripts.networks.weights import read_weights

ROUNDS = 2


@pytest.fixture
def clients(
    tiny: dict[str, Any], bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[MonaiAlgo]:
    """Two clients with three cases each, in a folder that is not the bundle's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    made = []
    for number in range(2):
        folder = tmp_path / f"client{number}"
        make_phantom(folder / "data", num_training=3, num_test=1, seed=number, progress=False)
        places = {"dataset_dir": folder / "data", "output_dir": folder, "ckpt_dir": folder / "models"}
        options = {**tiny, **{name: str(path) for name, path in places.items()}, "bundle_root": str(bundle_root)}
        options = {key.replace("#", "::"): value for key, value in options.items()}
        client = MonaiAlgo(
            bundle_root=str(bundle_root),
            config_train_filename="configs/train.yaml",
            train_kwargs={**options, "prepare_data": None, "val_interval": 1},
            config_evaluate_filename=None,
        )
        client.initialize({ExtraItems.CLIENT_NAME: f"client{number}"})
        made.append(client)
    return made


def averaged(weights: dict[str, Tensor], differences: list[dict[str, Any]]) -> dict[str, Tensor]:
    """The weights after the mean of the clients' differences, as a server computes them; bytes stay as they are."""
    new = dict(weights)
    for name, value in weights.items():
        if value.is_floating_point() and all(name in found for found in differences):
            changes = [torch.as_tensor(found[name]) for found in differences]
            new[name] = value + torch.stack(changes).mean(dim=0)
    return new


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning")  # by an administrator of ours
def test_two_clients_train_one_model(clients: list[MonaiAlgo], tmp_path: Path) -> None:
    weights = {name: value.clone() for name, value in clients[0].trainer.network.state_dict().items()}
    for _ in range(ROUNDS):
        differences = []
        for client in clients:
            client.train(ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS))
            found = client.get_weights()
            assert found.weight_type == WeightType.WEIGHT_DIFF
            differences.append(found.weights)
        moved = [name for name in differences[0] if name.startswith("backbone") and name in differences[1]]
        assert moved
        assert any((torch.as_tensor(differences[0][n]) - torch.as_tensor(differences[1][n])).any() for n in moved)
        weights = averaged(weights, differences)
    for number, client in enumerate(clients):
        assert client.trainer.state.epoch == ROUNDS
        assert set(read_weights(tmp_path / f"client{number}/models/model.pt")) == set(weights)
    client = clients[1]
    client.train(ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS))
    assert all(value.isfinite().all() for value in client.trainer.network.state_dict().values())
