"""Text encoders of the hub, from the cache that a download leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers.utils import hub

from scripts.networks.bert import copy_bert, pinned
from scripts.networks.text_encoder import StagedTextEncoder

OLD, NEW = "1" * 40, "2" * 40
NAME = "someone/bert"
SPLIT = (1, 1, 1, 1)


@pytest.fixture
def downloaded(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two commits of a model; the newer one, on the main branch, has all weights doubled."""
    repository = tmp_path / "hub/models--someone--bert"
    for commit, factor in ((OLD, 1.0), (NEW, 2.0)):
        folder = repository / "snapshots" / commit
        shutil.copytree(tiny_bert, folder)
        weights = {name: factor * value for name, value in load_file(folder / "model.safetensors").items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(NEW)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_is_offline_mode", True, raising=False)
    return NAME


def test_revision_decides_which_weights_are_read(downloaded: str, tiny_bert: Path, tmp_path: Path) -> None:
    given = StagedTextEncoder(str(tiny_bert), stage_layers=SPLIT).state_dict()
    newest = StagedTextEncoder(downloaded, stage_layers=SPLIT).state_dict()
    older = StagedTextEncoder(f"{downloaded}@{OLD}", stage_layers=SPLIT).state_dict()
    assert all(torch.equal(older[name], value) for name, value in given.items())
    assert all(torch.equal(newest[name], 2 * value) for name, value in given.items())
    copy_bert(f"{downloaded}@{OLD}", tmp_path / "copy")
    copied = StagedTextEncoder(str(tmp_path / "copy"), stage_layers=SPLIT).state_dict()
    assert all(torch.equal(copied[name], value) for name, value in given.items())


def test_commit_of_a_model_is_known(downloaded: str, tiny_bert: Path) -> None:
    assert pinned(downloaded) == f"{NAME}@{NEW}"
    assert pinned(f"{downloaded}@{OLD}") == f"{NAME}@{OLD}"
    assert pinned(str(tiny_bert)) == str(tiny_bert)


def test_revision_that_is_not_there(downloaded: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"'someone/bert@3333.* neither a folder .* nor a model that could be downloaded"
    ):
        StagedTextEncoder(f"{downloaded}@{'3' * 40}", stage_layers=SPLIT)
