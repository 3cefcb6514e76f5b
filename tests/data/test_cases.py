"""A model knows the cases that it was trained on, and tells nobody their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.data.cases import fingerprint, fingerprints, require_unseen_by_model


def case(folder: Path, name: str, size: int = 3) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.nii").write_bytes(b"x" * size)
    return {"image": str(folder / f"{name}.nii"), "case": name}


def test_fingerprint_is_of_name_and_size_and_not_of_the_place(tmp_path: Path) -> None:
    one, moved = case(tmp_path / "a", "patient_1"), case(tmp_path / "b", "patient_1")
    other_data_set, other_name = case(tmp_path / "c", "patient_1", 4), case(tmp_path / "a", "patient_2")
    assert fingerprint(one) == fingerprint(moved)
    assert len({fingerprint(item) for item in (one, other_data_set, other_name)}) == 3
    assert fingerprints([other_name, one]) == fingerprints([one, other_name])
    assert "patient" not in "".join(fingerprints([one, other_name]))


def test_every_channel_counts(tmp_path: Path) -> None:
    first, second = case(tmp_path, "p_t1"), case(tmp_path, "p_t2")
    both = {"image": [first["image"], second["image"]], "case": "p"}
    before = fingerprint(both)
    case(tmp_path, "p_t2", 9)
    assert fingerprint(both) != before


def test_case_of_the_training_is_refused_by_name(tmp_path: Path) -> None:
    items = [case(tmp_path, name) for name in ("a", "b", "c")]
    require_unseen_by_model(fingerprints(items[:1]), items[1:], "m.pt")
    require_unseen_by_model([], items, "m.pt")  # a model that does not know
    with pytest.raises(ValueError, match=r"m.pt was trained on 2 of the 3 cases to score, such as 'b'"):
        require_unseen_by_model(fingerprints(items[1:]), items, "m.pt")
