"""A headless Chromium: that of the system, or Playwright's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

# For software rendering, which a viewer in WebGL needs where there is no graphics card.
ARGUMENTS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as started:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        try:
            found = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        except playwright.Error as error:
            pytest.skip(f"no Chromium can be started (apt-get install chromium): {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that may complain of nothing, and ask nobody but this machine for anything."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: complaints.append(f"asks {asked.url}") if _elsewhere(asked.url) else None)
    yield page
    page.close()
    assert complaints == []


def _elsewhere(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:", "ws://127.0.0.1:"))
