from __future__ import annotations

from pathlib import Path

from scripts.release.space import GRADIO

REPOSITORY = Path(__file__).resolve().parents[2]


def pins(name: str) -> set[str]:
    lines = (REPOSITORY / name).read_text().splitlines()
    return {line.split("#")[0].strip() for line in lines if line.startswith("gradio")}


def test_the_app_is_tested_with_the_version_that_users_install() -> None:
    assert pins("requirements-app.txt") == pins("requirements-dev.txt") == {f"gradio=={GRADIO}"}
