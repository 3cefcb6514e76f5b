"""Checks that data is plain: no text in it would be run as configuration.

monai.bundle evaluates text that begins with $, looks up text that begins with @, puts another file's content in the
place of text that begins with %, and builds what a mapping with `_target_` names. Data that reach a configuration,
now or in another tool, must hold nothing of the kind.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

MARKS = ("$", "@", "%")
_RELATIVE = re.compile(r"[@%](?:#|::)")  # a relative reference, which is rewritten wherever it stands
_DIRECTIVE = re.compile(r"_\w+_")  # _target_, _disabled_, _mode_, ...
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # Unicode's categories
_LINES = "\n\r\t"
_SHOWN = 60  # characters


def require_plain(value: Any, where: str) -> None:
    """Raise an error if a text, list or mapping holds, at any depth, what a configuration would evaluate.

    Args:
        value: as read from JSON or YAML.
        where: what to call it, such as a file and a key.

    Raises:
        ValueError: some of it is no plain data; the message names the place and what stands there.
    """
    for place, part in _walk(value, where):
        if isinstance(part, str):
            _check_text(part, place)


def require_text(value: Any, where: str, *, lines: bool = False) -> str:
    """Raise an error if a text is not plain or has invisible characters.

    Args:
        value: to be judged.
        where: what to call it.
        lines: whether it may have line breaks and tabs.

    Raises:
        ValueError: it is no text, has control, zero-width or other invisible characters, or is no plain data.
    """
    if not isinstance(value, str):
        raise ValueError(f"{where} must be text, found {value!r}; quote it if it is meant to be text.")
    for position, character in enumerate(value):
        if unicodedata.category(character) in _INVISIBLE and not (lines and character in _LINES):
            name = unicodedata.name(character, "a control character")
            raise ValueError(
                f"{where} has the invisible character U+{ord(character):04X} ({name}) at position {position + 1}, "
                f"found {_shown(value)}; type it anew."
            )
    _check_text(value, where)
    return value


def require_name(value: Any, where: str) -> str:
    """Raise an error if a name for a file or folder would lead elsewhere.

    Raises:
        ValueError: it is no text or empty, leads to another folder, or begins with a dot, a dash or a space.
    """
    text = require_text(value, where)
    if not text.strip() or text != text.strip() or text[0] in ".-" or set(text) & set('/\\:*?"<>|'):
        raise ValueError(
            f"{where} becomes the name of a file or a folder and is {_shown(text)}; expected letters, digits, "
            "'_', '-', '.' and spaces, beginning with a letter or a digit, and no path."
        )
    return text


def _walk(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield every key and value with its place; what occurs several times, as by a YAML alias, once."""
    seen: set[int] = set()
    waiting = [(where, value)]
    while waiting:
        place, part = waiting.pop()
        yield place, part
        if not isinstance(part, Mapping | list | tuple) or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Mapping):
            for key in part:
                _check_key(key, place)
            waiting += [(f"{place}: '{key}'", entry) for key, entry in part.items()]
        else:
            waiting += [(f"{place}, entry {number}", entry) for number, entry in enumerate(part)]


def _check_key(key: Any, place: str) -> None:
    if not isinstance(key, str):
        return
    if any(_DIRECTIVE.fullmatch(part.strip()) for part in re.split("#|::", key)):
        raise ValueError(
            f"{place} has the key '{key}', by which a configuration builds or switches something; expected plain data."
        )
    _check_text(key, f"{place}, key '{key[:_SHOWN]}'")


def _check_text(text: str, where: str) -> None:
    start = next((c for c in text if not c.isspace() and unicodedata.category(c) not in _INVISIBLE), "")
    if start in MARKS:
        raise ValueError(
            f"{where} begins with '{start}', which a configuration would evaluate, found {_shown(text)}; begin "
            "otherwise."
        )
    if _RELATIVE.search(text):
        raise ValueError(
            f"{where} holds a reference that a configuration would resolve (@# or %#), found {_shown(text)}; write it "
            "otherwise."
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
