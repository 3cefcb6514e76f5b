"""A model knows the cases that it was trained on, and tells nobody their names."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from scripts.data.fingerprints import fingerprint, fingerprints, is_among, lowest_value, require_unseen_by_model


def case(folder: Path, name: str, value: float = 0, *, kind: Any = np.int16, step: float = 1.0) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    voxels = np.arange(60).reshape(3, 4, 5).astype(kind) + kind(value)
    path = folder / f"{name}.nii"
    nib.save(nib.Nifti1Image(voxels, np.diag([step, 1, 1, 1])), path)
    return {"image": str(path), "case": name}


def test_fingerprint_is_of_the_content_and_not_of_name_type_or_compression(tmp_path: Path) -> None:
    one, renamed = case(tmp_path / "a", "patient_1"), case(tmp_path / "b", "x", kind=np.float32)
    nib.save(nib.load(one["image"]), tmp_path / "z.nii.gz")
    assert fingerprint(one) == fingerprint(renamed) == fingerprint({"image": str(tmp_path / "z.nii.gz")})
    others = [case(tmp_path / "c", "patient_1", 4), case(tmp_path / "d", "patient_1", step=2.0)]
    assert len({fingerprint(item) for item in (one, *others)}) == 3
    assert "patient" not in "".join(fingerprints([one, *others]))


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    before = fingerprint(case(tmp_path, "a"))
    assert fingerprint(case(tmp_path, "a", 1, kind=np.float32)) != before


def test_every_channel_counts(tmp_path: Path) -> None:
    first, second, other = (case(tmp_path, f"p_{n}", n) for n in range(3))
    pairs = [{"image": [first["image"], second["image"]]}, {"image": [first["image"], other["image"]]}]
    assert fingerprint(pairs[0]) != fingerprint(pairs[1])


def test_file_of_another_format_is_known_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    (tmp_path / "b.bin").write_bytes(b"y")
    assert fingerprint({"image": str(tmp_path / "a.bin")}) != fingerprint({"image": str(tmp_path / "b.bin")})
    assert np.isnan(lowest_value(str(tmp_path / "a.bin")))


def test_known_ones_are_joined(tmp_path: Path) -> None:
    one, other = case(tmp_path, "a"), case(tmp_path, "b", 1)
    assert fingerprints([one], fingerprints([other])) == fingerprints([one, other])


def test_older_fingerprint_of_name_and_size_still_counts(tmp_path: Path) -> None:
    item = case(tmp_path, "a")
    older = hashlib.sha256(f"a {[Path(item['image']).stat().st_size]}".encode()).hexdigest()[:16]
    assert is_among(item, [older])
    assert not is_among({**item, "case": "b"}, [older])


def test_case_of_the_training_is_refused_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [case(tmp_path, name, n) for n, name in enumerate("abc")]
    require_unseen_by_model(fingerprints(items[:1]), items[1:], "m.pt")
    assert not caplog.records
    with pytest.raises(ValueError, match=r"m.pt was trained on 2 of the 3 cases to score, such as 'b'.*--start#unseen"):
        require_unseen_by_model(fingerprints(items[1:]), items, "m.pt", "start")


def test_model_that_does_not_know_its_cases_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        require_unseen_by_model([], [case(tmp_path, "a")], "m.pt")
    assert "m.pt does not know its training cases" in caplog.text
