"""Reading of config files that refuses duplicate keys and anything but a mapping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from scripts.trust.parsing import read_mapping
from scripts.trust.plain import require_name

NAMES = ("dataset_name",)
"""Settings that folders and files of the bundle are called after."""


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Read an entry file or an overlay without evaluating it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML or JSON, a key stands in it twice, or it is empty or a list.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"cannot find the config file {path}: expected a YAML or JSON file; check the path")
    return read_mapping(path, "a mapping from keys to settings, such as `max_epochs: 100`; an overlay is never empty")


def name_problems(parser: ConfigParser) -> Iterator[tuple[str, str]]:
    """Yield each setting that names folders with what is wrong with it; expressions are not checked."""
    for key in NAMES:
        value = parser.get(key)
        if isinstance(value, str) and value.startswith(("$", "@", "%")):
            continue
        try:
            require_name(value, key) if value is not None else None
        except ValueError as error:
            yield key, str(error)
