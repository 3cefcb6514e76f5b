"""Computes which files of `scripts` a released bundle needs: modules its configs name, what they import, their data."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

COMMANDS = (
    *("scripts.configuration.check", "scripts.data.check.command", "scripts.data.public.datalists"),
    *("scripts.dicom.segment", "scripts.export.command", "scripts.export.network", "scripts.app.command"),
)
"""The modules of those commands of `scripts.cli` that whoever uses a model has a use for."""
ALWAYS = ("scripts", "scripts.cli", *COMMANDS)


def reached_files(root: Path, configs: Iterable[Path]) -> list[Path]:
    """Return the files of the modules under `root`/scripts that some configurations reach, besides ``ALWAYS``.

    With them come the folders beside a module that are no packages: its templates and other data.

    Args:
        root: the bundle's folder.
        configs: YAML or JSON files; every dotted name in them that begins with "scripts" counts.

    Raises:
        ValueError: a name leads to no module.
    """
    wanted = [*ALWAYS, *(name for path in configs for name in names_in(path.read_text(encoding="utf-8")))]
    found: dict[Path, None] = {}
    while wanted:
        for file in _files(root, wanted.pop()):
            if file not in found:
                found[file] = None
                wanted += imports_of(file)
    return sorted([*found, *_data({file.parent for file in found})])


def _data(folders: Iterable[Path]) -> list[Path]:
    parts = [part for folder in folders for part in folder.iterdir() if part.is_dir() and part.name != "__pycache__"]
    return [file for part in parts if not (part / "__init__.py").exists() for file in part.rglob("*") if file.is_file()]


def names_in(text: str) -> list[str]:
    """Return the dotted names that begin with "scripts", comments left out."""
    lines = (re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines())
    return [name for line in lines for name in re.findall(r"\bscripts(?:\.\w+)+", line)]


def imports_of(file: Path) -> Iterator[str]:
    """Yield what a module imports of `scripts`, each name with what is taken from it, which may be a module too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "scripts")


def _files(root: Path, name: str) -> list[Path]:
    """Return the module that a dotted name begins with, and the packages that it is in."""
    files, place = [], root
    for part in name.split("."):
        place = place / part
        if place.is_dir():
            files += [place / "__init__.py"]
        elif place.with_suffix(".py").is_file():
            return [*files, place.with_suffix(".py")]
        else:
            break
    if len(files) < min(2, name.count(".") + 1):
        raise ValueError(
            f"'{name}' leads to no module of '{root / 'scripts'}'; correct the configuration that names it."
        )
    return files
