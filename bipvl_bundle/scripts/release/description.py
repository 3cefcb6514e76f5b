"""Description of a released bundle: a validated YAML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from scripts.trust.parsing import check_keys, read_mapping
from scripts.trust.plain import require_plain

BUNDLE_ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Release:
    """Description of a released bundle of one data set.

    Attributes:
        name: of the bundle and its folder: small letters, digits and underscores, as the Model Zoo has them.
        title: the headline of its page.
        version: must be a key of `changelog`.
        changelog: from versions to what changed.
        description: one sentence.
        data_source: where the training data come from.
        data_license: the text of `docs/data_license.txt`.
        training: how the model was trained: cases, epochs, time, machine.
        limits: what the model is not for, and where it will fail.
        overlays: config files on top of train.yaml and inference.yaml.
        options: on top of the overlays, as in the training; those that inference.yaml does not have are left out of it.
            Of inference and evaluation alone: mirror_axes, keep_largest, remove_smaller, invert_mode.
        weights: the trained model, relative to the source bundle.
        figures: the folder with what an earlier release measured of these weights, relative to the source bundle.
        image_classes: what the network's input is, in words.
        license: of the weights, an SPDX identifier.
        references: after those of the method.
        download_url: the folder on the web where files above the Model Zoo's limit will lie.
    """

    name: str
    title: str
    version: str
    changelog: Mapping[str, str]
    description: str
    data_source: str
    data_license: str
    training: str
    limits: str
    overlays: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    figures: str | None = None
    image_classes: str = ""
    license: str = "apache-2.0"
    references: tuple[str, ...] = ()
    download_url: str | None = None


KNOWN = {entry.name: entry for entry in fields(Release)}
REQUIRED = [name for name, entry in KNOWN.items() if entry.default is MISSING and entry.default_factory is MISSING]


def load_release(path: str | Path) -> Release:
    """Read and validate a description.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no mapping, a field is unknown, absent or of another type, text in it would be run by a
            configuration, the name is no folder's name of the Model Zoo, or the version has no line in the changelog.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no description of a release '{path}'; see those in configs/releases.")
    content = read_mapping(path, f"a mapping with {', '.join(KNOWN)}")
    require_plain(content, f"'{path}'")
    check_keys(content, known=KNOWN, where=f"'{path}'")
    absent = [name for name in REQUIRED if not content.get(name)]
    if absent:
        raise ValueError(f"'{path}' lacks {', '.join(absent)}; a release says each of {', '.join(REQUIRED)}.")
    return _checked(path, {name: _typed(path, name, value) for name, value in content.items() if value is not None})


def _typed(path: Path, name: str, value: Any) -> Any:
    kind = KNOWN[name].type
    if kind.startswith("Mapping"):
        if not isinstance(value, Mapping):
            raise ValueError(f"'{path}': {name} is {value!r}; expected a mapping.")
        return {str(key): entry for key, entry in value.items()}
    if kind.startswith("tuple"):
        if not isinstance(value, list):
            raise ValueError(f"'{path}': {name} is {value!r}; expected a list.")
        return tuple(str(entry) for entry in value)
    if not isinstance(value, str):
        raise ValueError(f"'{path}': {name} is {value!r}; expected text, in quotes where YAML reads a number.")
    return value.strip()


def _checked(path: Path, content: dict[str, Any]) -> Release:
    release = Release(**content)
    if not _NAME.fullmatch(release.name):
        raise ValueError(
            f"'{path}': name is '{release.name}'; expected small letters, digits and underscores, such as bipvl_liver."
        )
    if release.version not in release.changelog:
        raise ValueError(
            f"'{path}': version {release.version} has no line in the changelog, which has "
            f"{', '.join(release.changelog)}. Add what changed."
        )
    return release
