from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tests.report.test_run_page import Seen
from torch.utils.tensorboard import SummaryWriter

from scripts.report.run_report import report
from scripts.report.training import TrainingPage, write_training_page


@pytest.fixture
def handler(make_network, table, tmp_path: Path, labels: np.ndarray) -> TrainingPage:
    case = {
        "image": MetaTensor(torch.from_numpy(labels * 1.0).float()[None]),
        "label": MetaTensor(torch.from_numpy(labels)[None]),
    }
    with SummaryWriter(tmp_path / "tensorboard") as writer:
        for epoch, score in ((1, 0.5), (2, 0.75), (3, 0.25)):
            writer.add_scalar("train_segmentation", 1 / epoch, epoch)
            writer.add_scalar("val_mean_dice", score, epoch)
            writer.add_scalar(f"dice_{table.classes[0]}", score / 2, epoch)
    return TrainingPage(
        make_network(head="words").train(),
        [case],
        table,
        folder=tmp_path,
        roi_size=(64, 32, 32),
        facts={"title": "phantom", "fold": 0, "training cases": 20},
    )


def end(handler: TrainingPage) -> None:
    engine = SimpleNamespace()
    handler.start(engine)
    handler.write(engine)


def test_training_leaves_a_page(handler: TrainingPage, table) -> None:
    end(handler)
    seen = Seen(handler.folder / "report.html")
    assert [section["id"] for section in seen.all("section")] == [
        *("run", "validation", "training", "sentences", "attention"),
    ]
    assert "phantom: training" in seen.text
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", (handler.folder / "report.html").read_text(encoding="utf-8"))
    assert cells[cells.index("training cases") + 1] == "20"
    table_of_scores = cells[cells.index("best, epoch 2") - 1 :]
    assert table_of_scores[:6] == ["class", "best, epoch 2", "last, epoch 3", "mean", "0.750", "0.250"]
    assert table_of_scores[6:9] == [table.classes[0], "0.375", "0.125"]
    assert len(seen.all("img")) >= 4
    assert seen.text.count("Of the network after the last epoch.") == 2
    assert handler.network.training, "the network is handed back as it was"


def test_page_is_written_anew_by_the_command(handler: TrainingPage) -> None:
    handler.dataset = []
    end(handler)
    page = handler.folder / "report.html"
    page.unlink()
    report(str(handler.folder))
    assert "phantom: training" in page.read_text(encoding="utf-8")


def test_without_validation_the_page_says_so(handler: TrainingPage, tmp_path: Path) -> None:
    handler.dataset = []
    handler.folder = tmp_path / "other"
    end(handler)
    assert "No case was validated on" in (tmp_path / "other/report.html").read_text(encoding="utf-8")


def test_page_that_cannot_be_written_fails_no_training(handler: TrainingPage, caplog: pytest.LogCaptureFixture) -> None:
    handler.dataset = [{"image": None}]
    (handler.folder / "report.html").mkdir()
    with caplog.at_level(logging.WARNING):
        end(handler)
    assert "What the model makes of its words cannot be shown" in caplog.text
    assert "The page of this training could not be written" in caplog.text


def test_folder_of_no_training(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not the folder of a training that has ended"):
        write_training_page(tmp_path)
