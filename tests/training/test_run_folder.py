from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.training.run_folder import require_own_folder


@pytest.mark.parametrize("there", [[], ["last.pt"], ["model.pt"], ["model.pt", "last.pt"]])
@pytest.mark.parametrize(
    ("options", "allows"),
    [
        ({}, False),
        ({"overwrite": True}, True),
        ({"start_from": "elsewhere/model.pt"}, False),
        ({"start_from": "models/model.pt"}, True),
        ({"resume": True}, None),  # depends on whether there is a state to resume from
    ],
)
def test_models_of_another_run_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], options: dict[str, Any], allows: bool | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in there:
        (tmp_path / "models" / name).write_bytes(b"")
    if not there or allows or (allows is None and "last.pt" in there):
        require_own_folder("models", **options)
    else:
        with pytest.raises(FileExistsError, match=" and ".join(there) + " of another run.*--overwrite True"):
            require_own_folder("models", **options)


def test_folder_need_not_exist(tmp_path: Path) -> None:
    require_own_folder(tmp_path / "runs/phantom/models")
