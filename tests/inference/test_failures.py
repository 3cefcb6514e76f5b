"""A case that fails is a failure of that case, whatever fails in it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from torch import nn

import scripts.inference.failures as failures_module
from scripts.inference.background import BackgroundCompose
from scripts.inference.failures import SomeCasesFailed, require_no_failures, run_cases
from scripts.metrics import SegmentationMetricsHandler
from scripts.training.memory_advice import MemoryAdvice


class Network(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = int(image.flatten()[0])
        if value == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return (image == value).float()


def load(item: dict[str, Any]) -> dict[str, Any]:
    if item["number"] == 1:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")
    volume = torch.full((1, 4, 4, 4), float(item["number"]))
    return {"image": volume, "label": torch.ones_like(volume), "case": item["case"]}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Any, Any]]:
    def build(numbers: list[int], refused: int | None = None) -> tuple[Any, Any]:
        def save(item: dict[str, Any]) -> dict[str, Any]:
            if item["case"] == f"c{refused}":
                raise OSError("No space left on device")
            return item

        metric = SegmentationMetricsHandler(["liver"], surface=False, output_dir=tmp_path)
        items = [{"image": f"c{n}.nii.gz", "case": f"c{n}", "number": n} for n in numbers]
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(items, load), batch_size=1),
            network=Network(),
            inferer=SimpleInferer(),
            postprocessing=save,
            key_val_metric={"val_mean_dice": metric},
            val_handlers=[MemoryAdvice({"roi_size": [64, 64, 64]})],
        )
        return evaluator, metric

    return build


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 4], [1, 3, 0, 2, 4], [0, 2, 4, 3, 1]])
def test_the_other_cases_are_done_and_scored(make: Any, tmp_path: Path, numbers: list[int]) -> None:
    evaluator, metric = make(numbers, refused=4)
    with pytest.raises(SomeCasesFailed, match=r"3 of 5 cases failed: .*failures\.csv"):
        run_cases(evaluator, tmp_path, keep=metric)
    found = {row["case"]: row for row in rows(tmp_path / "failures.csv")}
    assert list(found) == [f"c{n}" for n in numbers if n in (1, 3, 4)]
    assert found["c1"]["file"] == "c1.nii.gz"
    assert "end-of-stream" in found["c1"]["reason"]
    assert "ran out of memory" in found["c3"]["reason"]
    assert "No space left" in found["c4"]["reason"]
    assert {row["case"] for row in rows(tmp_path / "metrics_per_case.csv")} == {"c0", "c2"}


def test_without_a_failure_no_list_is_left(make: Any, tmp_path: Path) -> None:
    (tmp_path / "failures.csv").write_text("case,file,reason\n")
    evaluator, metric = make([0, 2])
    run_cases(evaluator, tmp_path, keep=metric)
    assert not (tmp_path / "failures.csv").exists()
    assert {row["case"] for row in rows(tmp_path / "metrics_per_case.csv")} == {"c0", "c2"}


def test_a_single_case_fails_with_its_own_error(make: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="applying transform"):
        run_cases(make([1])[0], tmp_path)


def test_nothing_to_do_is_no_error(make: Any, tmp_path: Path) -> None:
    run_cases(make([])[0], tmp_path)


def test_a_fault_of_no_case_ends_the_run(make: Any, tmp_path: Path) -> None:
    evaluator, metric = make([0, 2])

    def refuse(*_: Any) -> None:
        raise OSError("the table cannot be written")

    metric.compute = refuse
    with pytest.raises(OSError, match="the table cannot"):
        run_cases(evaluator, tmp_path, keep=metric)


@pytest.mark.parametrize("failing", [[], [2], [1, 3], [0, 3, 4], [0, 1, 2, 3, 4]], ids=str)
def test_of_two_processes_each_goes_on(tmp_path: Path, failing: list[int]) -> None:
    """Of five cases the first process has 0, 2 and 4, the second 1 and 3."""
    command = [sys.executable, str(Path(__file__).with_name("two_rank_worker.py"))]
    arguments = [str(tmp_path / "store"), str(tmp_path / "eval"), json.dumps(failing), "5"]
    root = str(Path(failures_module.__file__).parents[2])
    environment = {"PYTHONPATH": root, "PATH": "", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(n), *arguments], env=environment, stdout=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [bool(failing)] * 2
    assert [f"{len(failing)} of 5 cases failed" in text for text in said] == [bool(failing)] * 2
    listed = rows(tmp_path / "eval/failures.csv") if failing else []
    assert sorted(row["case"] for row in listed) == [f"c{n}" for n in failing]
    assert all("is cut off" in row["reason"] for row in listed)
    scored = tmp_path / "eval/metrics_per_case.csv"
    found = {row["case"] for row in rows(scored)} if scored.exists() else set()
    assert found == {f"c{n}" for n in range(5) if n not in failing}


def test_files_that_cannot_be_written_in_the_background_are_their_cases_failures(tmp_path: Path) -> None:
    """Those of the first, of one in the middle and of the last case; the volume that does not load is in order, too."""
    saved = []

    def save(item: dict[str, Any]) -> dict[str, Any]:
        if item["case"] in ("c0", "c4", "c6"):
            raise OSError(f"No space left for {item['case']}")
        saved.append(item["case"])
        return item

    background = BackgroundCompose([save])
    items = [{"image": f"c{n}.nii.gz", "case": f"c{n}", "number": n} for n in (0, 2, 1, 4, 5, 6)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, load), batch_size=1),
        network=Network(),
        inferer=SimpleInferer(),
        postprocessing=background,
    )
    with pytest.raises(SomeCasesFailed, match="4 of 6 cases failed"):
        run_cases(evaluator, tmp_path, background=background)
    assert saved == ["c2", "c5"]
    found = {row["case"]: row for row in rows(tmp_path / "failures.csv")}
    assert list(found) == ["c0", "c1", "c4", "c6"]
    assert found["c4"]["reason"].endswith("No space left for c4")
    assert found["c6"]["file"] == "c6.nii.gz"


def test_place_of_the_masks_is_said_where_none_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"image": "a.nii.gz"}, {"image": "b.nii.gz"}]
    require_no_failures(tmp_path, items)
    assert capsys.readouterr().out == f"\n2 of 2 cases have their masks in {tmp_path}\n"
    (tmp_path / "failures.csv").write_text("case,file,reason\nb,b.nii.gz,It is cut off.\n")
    with pytest.raises(SomeCasesFailed, match="1 of 2 cases failed: b"):
        require_no_failures(tmp_path, items)
    assert capsys.readouterr().out == ""
