from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scripts.release.weights import in_half, read_weights, write_weights


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


def test_bare_state_dict_is_read(tmp_path: Path) -> None:
    torch.save({"row": torch.ones(2)}, tmp_path / "bare.pt")
    assert read_weights(tmp_path / "bare.pt")["row"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("content", [{"model": {"epoch": 3}}, {"model": {}}, [1]])
def test_what_is_no_model(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is not a"):
        read_weights(tmp_path / "other.pt")
