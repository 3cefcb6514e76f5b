from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.networks.weights import (
    count_parameters,
    in_half,
    model_state,
    read_checkpoint,
    read_weights,
    record_of,
    save_atomically,
    write_weights,
)


def test_half_precision_leaves_what_is_no_float() -> None:
    half = in_half({"weight": torch.tensor([1.0, 1.0 + 2**-12]), "index": torch.tensor([70000])})
    assert half is not None
    assert half["weight"].tolist() == [1.0, 1.0]
    assert half["index"].tolist() == [70000]


def test_half_precision_that_overflows_is_none() -> None:
    assert in_half({"weight": torch.tensor([1.0, 70000.0])}) is None


def test_writes_tensors_only_without_the_storage_they_are_a_view_of(tmp_path: Path) -> None:
    write_weights({"row": torch.zeros(1000, 1000)[3]}, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < 10_000
    assert read_weights(tmp_path / "model.pt")["row"].shape == (1000,)


def test_a_model_is_a_flat_state_dict_that_loads_strictly_with_its_record_beside_it(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3), torch.nn.BatchNorm3d(2))
    write_weights(network.state_dict(), tmp_path / "model.pt", {"trained_on": ["ab12"]})
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(state) == list(network.state_dict())
    torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3), torch.nn.BatchNorm3d(2)).load_state_dict(state, strict=True)
    assert record_of(read_checkpoint(tmp_path / "model.pt")) == {"trained_on": ["ab12"]}


@pytest.mark.parametrize(
    ("content", "record"),
    [
        ({"model": {"a": torch.ones(1)}, "trained_on": ["x"]}, {"trained_on": ["x"]}),
        ({"model": {"a": torch.ones(1)}}, {}),
        ({"a": torch.ones(1)}, {}),
        ({"a": torch.ones(1), "trained_on": torch.ones(1)}, {}),
    ],
)
def test_older_forms_are_read(tmp_path: Path, content: dict[str, Any], record: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "old.pt")
    checkpoint = read_checkpoint(tmp_path / "old.pt")
    assert model_state(checkpoint)["a"].tolist() == [1.0]
    assert record_of(checkpoint) == record


def test_a_file_without_a_digest_is_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "old.pt")
    with caplog.at_level(logging.INFO):
        read_checkpoint(tmp_path / "old.pt", quiet=True)
        assert not caplog.messages
        read_checkpoint(tmp_path / "old.pt")
        write_weights({"a": torch.ones(1)}, tmp_path / "new.pt")
        read_checkpoint(tmp_path / "new.pt")
    old, new = caplog.messages
    assert old == f"{tmp_path / 'old.pt'} carries no digest: damage to it would go unnoticed. Saved anew, it has one."
    assert new.startswith(f"{tmp_path / 'new.pt'} is what was written (SHA-256 ")


def test_bare_state_dict_is_read(tmp_path: Path) -> None:
    torch.save({"row": torch.ones(2)}, tmp_path / "bare.pt")
    assert read_weights(tmp_path / "bare.pt")["row"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("content", [{"model": {"epoch": 3}}, {"model": {}}, {"model": 3}, [1]])
def test_what_is_no_model(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt (is not a trained model|holds a list)"):
        read_weights(tmp_path / "other.pt")


def test_counts_what_is_trained_and_no_statistics() -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3), torch.nn.BatchNorm3d(2))
    assert count_parameters(network.state_dict()) == 2 * 27 + 2 + 2 + 2


def test_a_file_that_is_kept_is_read_once_unless_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read, load = tmp_path / "model.pt", [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: read.append(args) or load(*args, **kwargs))
    write_weights({"w": torch.ones(1)}, path, {"plan": {}})
    assert record_of(read_checkpoint(path, quiet=True, keep=True)) == {"plan": {}}
    assert record_of(read_checkpoint(path, quiet=True, keep=True)) == {"plan": {}}
    assert read_checkpoint(path)["w"] == 1
    assert len(read) == 1
    read_checkpoint(path, keep=True)  # what nobody wants to keep is let go
    assert len(read) == 2
    write_weights({"w": torch.zeros(1)}, path)
    assert read_checkpoint(path)["w"] == 0


class TestSaveAtomically:
    def test_makes_the_folder_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        save_atomically({"a": torch.ones(1)}, tmp_path / "new/folder/x.pt")
        assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["x.pt"]

    def test_writers_of_one_file_do_not_fail_each_other(self, tmp_path: Path) -> None:
        path = tmp_path / "last.pt"

        def write(number: int) -> None:
            for _ in range(20):
                save_atomically({"x": torch.full((1000,), float(number))}, path)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert len(set(read_checkpoint(path)["x"].tolist())) == 1
        assert list(tmp_path.iterdir()) == [path]

    def test_failure_keeps_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "x.pt"
        save_atomically({"a": torch.ones(1)}, path)
        before = path.read_bytes()

        def save(content: Any, target: Path) -> None:
            target.write_bytes(b"half")
            raise RuntimeError("PytorchStreamWriter failed writing file")  # what torch makes of a full disk

        monkeypatch.setattr(torch, "save", save)
        with pytest.raises(OSError, match=r"x\.pt could not be written: PytorchStreamWriter.*untouched"):
            save_atomically({"a": torch.zeros(1)}, path)
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.pt", before)]

    def test_file_in_place_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(OSError, match=r"could not be written.*set `ckpt_dir`"):
            save_atomically({}, tmp_path / "file/x.pt")
