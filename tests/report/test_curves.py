from __future__ import annotations

import logging
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from scripts.report.curves import curve_panels, curves_figure, read_curves


def test_curves_are_those_of_the_event_files(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        for epoch in (1, 2):
            writer.add_scalar("train_segmentation", 1 / epoch, epoch)
            writer.add_scalar("train_log_variance_segmentation", -epoch, epoch)
            writer.add_scalar("train_top1_vision_to_text", 0.5, epoch)
            writer.add_scalar("val_mean_dice", 0.25 * epoch, epoch)
            writer.add_scalar("train_loss_iteration", 9, epoch)
    curves = read_curves(tmp_path)
    assert curves["train_segmentation"] == ([1, 2], [1.0, 0.5])
    panels = {title: list(found) for title, found in curve_panels(curves).items()}
    assert panels == {
        "losses": ["train_segmentation"],
        "weights of the losses, log sigma²": ["train_log_variance_segmentation"],
        "collapse: accuracy of the alignment": ["train_top1_vision_to_text"],
        "validation: DSC": ["val_mean_dice"],
    }
    drawn = [line.get_ydata().tolist() for axes in curves_figure(curves).axes for line in axes.lines]
    assert drawn == [[1.0, 0.5], [-1.0, -2.0], [0.5, 0.5], [0.25, 0.5]]


def test_a_resumed_run_counts_once(tmp_path: Path) -> None:
    for value in (1.0, 3.0):
        with SummaryWriter(tmp_path, filename_suffix=f".{value}") as writer:
            writer.add_scalar("train_loss", value, 1, walltime=value)
    assert read_curves(tmp_path)["train_loss"] == ([1], [3.0])


def test_reading_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        with SummaryWriter(tmp_path, filename_suffix=name) as writer:
            writer.add_scalar("train_loss", 1.0, 1)
    with caplog.at_level(logging.INFO):
        assert read_curves(tmp_path)
    assert caplog.text == ""


def test_no_event_file_no_curve(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == {}
