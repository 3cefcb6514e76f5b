"""The page to try words on, with the weights that come with the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from scripts.data.phantom.scan import draw_case

pytest.importorskip("gradio", reason="Gradio is not installed")
from scripts.app.command import words_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(bundle_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("images")
    nib.save(draw_case(99, 1, 0).image, folder / "body.nii.gz")
    served = words_page(str(bundle_root), str(folder), device="cpu")
    _, url, _ = served.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, footer_links=[])
    yield url
    served.close()


def choose(page: Any, box: str, text: str) -> None:
    page.locator(f"#{box} input").first.click()
    page.get_by_role("option", name=text, exact=True).first.click()


def state(page: Any, part: str) -> str:
    page.wait_for_function(
        "part => document.querySelector('#status textarea')?.value.includes(part)", arg=part, timeout=120_000
    )
    return page.input_value("#status textarea")


def test_exchanged_words_move_the_mask(page: Any, address: str) -> None:
    page.goto(address)
    choose(page, "example", "body.nii.gz")
    page.click("#segment")
    assert "0 voxels changed" in state(page, "segmented in")
    choose(page, "first", "left kidney")
    choose(page, "second", "right kidney")
    page.click("#exchange")
    state(page, "Press Segment")
    page.click("#segment")
    changed = int(state(page, "segmented in").split("; ")[1].split()[0])
    assert changed > 100
    assert page.locator("#after img").get_attribute("src")
    assert "body_words" in page.locator("#table").inner_text()


def test_row_without_a_sentence_is_refused_and_the_reason_shown(page: Any, address: str) -> None:
    page.goto(address)
    choose(page, "example", "body.nii.gz")
    page.locator("#words").get_by_text("Spleen in an abdominal CT image.").last.dblclick()
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    page.click("#segment")
    assert "'title' of 'spleen' is empty" in state(page, "Not segmented")
