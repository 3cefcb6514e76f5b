"""The pages of an evaluation and of a training, as they are opened from a disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report.conftest import make_evaluated
from torch.utils.tensorboard import SummaryWriter

from scripts.report.run_page import write_run_page
from scripts.report.training import write_training_page
from scripts.whole_file import write_text

pytestmark = pytest.mark.browser
SHOWN = "#view[data-case]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = np.zeros((12, 10, 8), dtype=np.uint8)
    labels[1:5, 2:8, 2:6] = 1
    labels[7:10, 3:6, 3:7] = 2
    folder = make_evaluated(tmp_path_factory.mktemp("run") / "metrics", labels, {"a": 0.9, "b": 0.5, "c": 0.7})
    return write_run_page(folder, folder.parent)


def colours(page: Any) -> set[tuple[int, ...]]:
    """The colours of the viewer, in steps of 16."""
    page.wait_for_timeout(300)
    values = page.evaluate(
        """() => { const viewer = window.reportViewer; viewer.drawScene(); const gl = viewer.gl;
        const found = new Uint8Array(gl.drawingBufferWidth * gl.drawingBufferHeight * 4);
        gl.readPixels(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight, gl.RGBA, gl.UNSIGNED_BYTE, found);
        const seen = new Map();
        for (let i = 0; i < found.length; i += 4) {
          const key = [found[i] >> 4, found[i + 1] >> 4, found[i + 2] >> 4].join();
          seen.set(key, (seen.get(key) ?? 0) + 1);
        }
        return [...seen].filter(([, count]) => count > 200).map(([key]) => key); }"""
    )
    return {tuple(map(int, key.split(","))) for key in values}


def hues(page: Any) -> int:
    """How many colours are no grey."""
    return sum(max(colour) - min(colour) > 2 for colour in colours(page))


def test_every_picture_is_loaded(page: Any, report: Path) -> None:
    page.goto(report.as_uri())
    widths = page.eval_on_selector_all("img", "images => images.map((image) => image.naturalWidth)")
    assert len(widths) == 4
    assert min(widths) > 100
    page.wait_for_selector(SHOWN)


def test_page_of_a_training_opens_without_a_viewer(page: Any, tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "tensorboard") as writer:
        for epoch in (1, 2):
            writer.add_scalar("train_loss", 1 / epoch, epoch)
            writer.add_scalar("val_mean_dice", 0.4 * epoch, epoch)
    write_text(tmp_path / "training.json", json.dumps({"title": "phantom", "fold": 0, "classes": ["liver"]}))
    page.goto(write_training_page(tmp_path).as_uri())
    assert page.inner_text("h1") == "phantom: training"
    assert page.locator("section h2").all_inner_texts() == ["What was run", "Validation", "Training"]
    widths = page.eval_on_selector_all("img", "images => images.map((image) => image.naturalWidth)")
    assert len(widths) == 1
    assert widths[0] > 100
    assert page.locator("#viewer").count() == 0


def test_viewer_reacts_to_boxes_and_keys(page: Any, report: Path) -> None:
    page.goto(report.as_uri())
    page.wait_for_selector(SHOWN)
    both = hues(page)
    page.get_by_label("liver").uncheck()
    one = hues(page)
    page.get_by_label("left kidney").uncheck()
    assert both > one > hues(page)
    page.get_by_label("liver").check()
    page.get_by_label("left kidney").check()
    page.focus("#view")
    page.keyboard.press("p")
    assert not page.get_by_label("prediction").is_checked()
    page.keyboard.press("2")
    assert page.input_value("#plane") == "axial"
    axial = colours(page)
    page.keyboard.press("r")
    assert page.get_by_label("reference").is_checked()
    assert colours(page) != axial


def test_picture_leads_to_its_case(page: Any, report: Path) -> None:
    page.goto(report.as_uri())
    page.wait_for_selector(SHOWN)
    page.click("a[data-case=b]")
    page.wait_for_selector("#view[data-case=b]")
    assert page.input_value("#case") == "b"
    assert "b: reference, prediction" in page.inner_text("#state")


def test_page_says_that_its_volumes_are_absent(browser: Any, report: Path, tmp_path: Path) -> None:
    alone = browser.new_page()
    alone.goto(shutil.copy(report, tmp_path / "alone.html").as_uri())
    alone.wait_for_function("document.getElementById('state').textContent.includes('shows nothing')")
    assert "copy the folder 'report_files' too" in alone.inner_text("#state")
    alone.close()


def test_names_of_cases_are_text(page: Any, report: Path, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    text = report.read_text(encoding="utf-8").replace('"title": "a (best)"', f'"title": {json.dumps(evil)}')
    assert evil in text
    changed = report.with_name("changed.html")
    changed.write_text(text, encoding="utf-8")
    page.goto(changed.as_uri())
    page.wait_for_selector(SHOWN)
    assert page.locator("#case option").first.inner_text() == evil
