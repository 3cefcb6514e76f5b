"""Checks of the content of a concept table's file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.trust.parsing import check_keys, hint, read_mapping
from scripts.trust.plain import require_text

REQUIRED_KEYS = ("modality", "concepts", "classes")
KNOWN_KEYS = ("modality", "reviewed", "concepts", "classes")
PLACEHOLDER = "TODO"
"""How a text begins that is still to be written."""
RESERVED = {"background": "what belongs to no class", "mean": "the mean over the classes in tables of figures"}
"""What no class may be called, and what is called so."""

_SPACES = re.compile(r"[^\S\x0b\x0c\x1c-\x1f\x85\u2028\u2029]+")  # but not what is no space to a reader


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a concept table's file; raises an error if there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"No concept table at '{path}'; expected a YAML file of concept sentences.")
    return read_mapping(path, f"a mapping with the keys {', '.join(KNOWN_KEYS)}")


def check_entry(entry: object, concepts: Sequence[str], position: int, source: str) -> None:
    """Raise an error unless the entry of a class has a name and a sentence under every concept."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f"{source}: class number {position} needs a text 'name' and its concepts, found {entry!r}.")
    where = f"{source}: class '{entry['name']}'"
    if set(entry) == {"name"}:
        raise ValueError(f"{where} has no concepts, expected {', '.join(concepts)}.")
    keys = ("name", *concepts)
    check_keys(entry, required=keys, known=(*keys, "code", "alternatives"), where=where)


def read_alternatives(content: object, concepts: Sequence[str], where: str) -> tuple[tuple[str, ...], ...]:
    """Read K lists of other sentences from what a class has under ``alternatives``: {concept: [sentence, ...]}."""
    if content is None:
        return ((),) * len(concepts)
    if not isinstance(content, dict):
        raise ValueError(f"{where}: 'alternatives' must be {{concept: [sentence, ...]}}, found {content!r}.")
    check_keys(content, required=(), known=concepts, where=f"{where}, alternatives")
    found = []
    for concept in concepts:
        sentences = as_list(content.get(concept, []), f"{where}: the alternatives of '{concept}'")
        for sentence in sentences:
            check_text(sentence, f"{where}: an alternative of '{concept}'")
        found.append(tuple(tidy(sentence) for sentence in sentences))
    return tuple(found)


def check_names(names: Sequence[object], kind: str, source: str) -> None:
    """Raise an error unless the names of classes or concepts are different texts that may be used."""
    if not names:
        raise ValueError(f"{source} names no {kind}, expected at least one.")
    seen: dict[str, object] = {}
    for name in names:
        check_text(name, f"{source}: {kind} name")
        key = normalised(str(name))
        if kind == "class" and key in RESERVED:
            raise ValueError(
                f"{source}: a class is called '{name}', which stands for {RESERVED[key]}; give it another name."
            )
        if key in seen:
            raise ValueError(f"{source}: duplicate {kind} '{name}' (also '{seen[key]}'); keep one of them.")
        seen[key] = name


def check_text(value: object, where: str) -> None:
    """Raise an error unless a value is a written text: no blank, no placeholder, nothing that would be evaluated."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{where} is empty; write a text there.")
    if not isinstance(value, str):
        raise ValueError(f"{where} must be text, found {value!r}; quote it if it is meant to be text.")
    require_text(value, where)
    if value.lstrip().startswith(PLACEHOLDER):
        raise ValueError(
            f"{where} is still to be written (found '{value}'); write there what can be seen in the image, and look "
            f"for others marked {PLACEHOLDER}."
        )


def check_pair(value: object) -> tuple[str, str]:
    """Return the two classes of `swap`."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"`swap` must name two classes, such as [left kidney, right kidney]; found {value!r}.")
    return str(value[0]), str(value[1])


def check_seed(value: object) -> int:
    """Return the value of `shuffle_seed`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"`shuffle_seed` must be a whole number or null, found {value!r}.")
    return value


def as_list(value: object, where: str) -> list[Any]:
    """Return a value that must be a list."""
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, found {type(value).__name__}.")
    return value


def find_name(name: str, names: Sequence[str], kind: str, source: str) -> str:
    """Return the name among `names` that is meant, whatever its case and spaces."""
    for candidate in names:
        if normalised(candidate) == normalised(str(name)):
            return candidate
    raise ValueError(f"{source} has no {kind} '{name}'{hint(name, names)}.")


def tidy(value: Any) -> Any:
    """Collapse whitespace in a text; leaves anything else for the table's own check to refuse."""
    return _SPACES.sub(" ", value).strip(" ") if isinstance(value, str) else value


def normalised(text: str) -> str:
    """Return a text without differences of case and spaces, and of how Unicode writes one letter."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold()
