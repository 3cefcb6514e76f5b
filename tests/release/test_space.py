"""A released bundle has what a Space of a model hub starts."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from scripts.release.space import APP, GRADIO


def test_app_of_a_release_names_what_is_in_it(bundle: Path) -> None:
    source = (bundle / "app.py").read_text()
    assert source == APP
    names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    modules = [str(node.module) for node in names if str(node.module).startswith("scripts")]
    assert modules == ["scripts.app.command"]
    assert (bundle / "scripts/app/command.py").is_file()


def test_requirements_are_those_of_the_metadata(bundle: Path) -> None:
    facts = json.loads((bundle / "configs/metadata.json").read_text())
    lines = (bundle / "requirements.txt").read_text().splitlines()
    assert f"torch=={facts['pytorch_version']}" in lines
    assert f"gradio=={GRADIO}" in lines
    assert {f"{name}=={version}" for name, version in facts["required_packages_version"].items()} <= set(lines)
