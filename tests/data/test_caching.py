from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from monai.data import CacheDataset
from monai.transforms import Compose, RandShiftIntensityd, Transform

from scripts.data.caching import SafeCacheDataset

SCRIPTS = Path(__file__).resolve().parents[2] / "bipvl_bundle"
PROGRAM = """
import sys
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Spacing, Transform
from scripts.data.caching import SafeCacheDataset

class Load(Transform):
    def __call__(self, case):
        if case == 0:
            raise ValueError("the first case is bad")
        for _ in range(3):
            Spacing([0.8] * 3)(MetaTensor(torch.rand(1, 80, 80, 60)))

SafeCacheDataset(list(range(8)), Compose([Load()]), num_workers=int(sys.argv[1]), progress=False)
"""


@pytest.mark.parametrize("workers", ["0", "3"])
def test_process_ends_with_the_error_and_is_not_aborted(workers: str, tmp_path: Path) -> None:
    """Of MONAI's own, three of four such processes are aborted (status 134)."""
    command = [sys.executable, "-c", PROGRAM, workers]
    for _ in range(2):
        done = subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, check=False)
        assert (done.returncode, "the first case is bad" in done.stderr) == (1, True), done.stderr
        assert "terminate called" not in done.stderr


class Load(Transform):
    def __call__(self, case: Any) -> Any:
        if case["image"] < 0:
            raise ValueError("bad")
        return {"image": case["image"] * 2}


def test_no_thread_is_left_when_a_case_fails() -> None:
    before = threading.enumerate()
    with pytest.raises(RuntimeError, match="applying transform"):
        SafeCacheDataset([{"image": n} for n in (-1, 1, 2, 3)], Compose([Load()]), num_workers=2, progress=False)
    assert not [t.name for t in threading.enumerate() if t not in before and t.name.startswith("ThreadPool")]


@pytest.mark.parametrize(("rate", "workers"), [(1.0, 0), (0.5, 2), (0.0, 1), (1.0, None)])
def test_holds_what_monai_would(rate: float, workers: int | None) -> None:
    items = [{"image": float(n)} for n in range(5)]
    transform = Compose([Load(), RandShiftIntensityd("image", offsets=0.0)])
    options: dict[str, Any] = {"cache_rate": rate, "num_workers": workers, "progress": False}
    found, expected = (kind(items, transform, **options) for kind in (SafeCacheDataset, CacheDataset))
    assert list(found._cache) == list(expected._cache)
    assert len(found) == len(expected) == 5
