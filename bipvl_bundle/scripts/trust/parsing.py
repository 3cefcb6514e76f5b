"""Reading of YAML and JSON that refuses duplicate keys and runs nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that raises an error at a duplicate key, where YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_data(path: str | Path) -> Any:
    """Read a YAML or JSON file, chosen by the suffix; nothing in it is run.

    Raises:
        OSError: it cannot be read.
        ValueError: it is neither, or a key stands twice in one mapping; the message names the file, and the place
            for YAML.
    """
    path = Path(path)
    kind = "JSON" if path.suffix.lower() == ".json" else "YAML"
    try:
        text = path.read_text(encoding="utf-8-sig")
        if kind == "JSON":
            return json.loads(text, object_pairs_hook=_unique)
        return yaml.load(text, Loader=_UniqueKeyLoader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        advice = " (quote a text that holds ': ' or ' #')" if kind == "YAML" else ""
        raise ValueError(f"'{path}' is no valid {kind}: {error}. Correct it{advice}.") from error


def read_mapping(path: str | Path, expected: str) -> dict[str, Any]:
    """Read a YAML or JSON file that must hold a mapping; `expected` describes it in the error."""
    content = read_data(path)
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"'{path}' holds {found}; expected {expected}.")
    return content


def check_keys(content: Mapping[str, Any], *, known: Collection[str], required: Iterable[str] = (), where: str) -> None:
    """Raise an error if a mapping has an unknown key, naming the nearest known one, or lacks a required one.

    Raises:
        ValueError: the message begins with `where`.
    """
    for key in content:
        if key not in known:
            raise ValueError(f"{where} has an unknown key '{key}'{hint(key, known)}.")
    missing = [key for key in required if key not in content]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(repr(key) for key in missing)}.")


def hint(name: object, known: Collection[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known one, or all of them."""
    close = get_close_matches(str(name), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in content if keys.count(key) > 1)
        raise ValueError(f"key '{twice}' given twice")
    return content
