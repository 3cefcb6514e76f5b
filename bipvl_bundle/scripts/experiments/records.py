"""JSON records of runs, and the differences between two of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.experiments.description import BUNDLE_ROOT
from scripts.whole_file import write_text


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def digest(content: Any) -> str:
    """Return the SHA-256 of JSON-compatible content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def code_digest() -> str:
    """Return a digest of the bundle's scripts, which tells runs of different versions apart."""
    found = hashlib.sha256()
    for path in sorted((BUNDLE_ROOT / "scripts").rglob("*.py")):
        found.update(path.relative_to(BUNDLE_ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def differences(old: Any, new: Any, id: str = "") -> Iterator[str]:
    """Return the differences of two identities as text, by config id."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            deeper = f"{id}#{key}" if id else key
            if key not in old or key not in new:
                yield f"{_without_root(deeper)} is {'new' if key in new else 'gone'}"
            else:
                yield from differences(old[key], new[key], deeper)
    elif old != new:
        yield f"{_without_root(id)} was {_brief(old)} and is now {_brief(new)}"


def _without_root(id: str) -> str:
    return id.removeprefix("configuration#")


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
