"""Contents of the files that describe a new data set, and their writing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.data.datalist import load_datalist
from scripts.whole_file import partial_name
from scripts.words.checks import PLACEHOLDER, normalised
from scripts.words.prompts import FIELDS
from scripts.words.table import ConceptTable

_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


def target_paths(root: Path, name: str) -> list[Path]:
    """Return the paths of overlay, datalist and concept table of a new data set; none may exist.

    Raises:
        ValueError: the name will not do.
        FileNotFoundError: `root` is no bundle.
        FileExistsError: one of the three is there.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"'{name}' will not do as a data set's name; expected a letter, then letters, digits and underscores."
        )
    if not (root / "configs" / "train.yaml").is_file():
        raise FileNotFoundError(
            f"'{root.resolve()}' is no folder of the bundle: it has no configs/train.yaml. Run the command in the "
            "bundle's folder, or give `bundle_root`."
        )
    configs = root / "configs"
    paths = [
        configs / f"dataset_{name}.yaml",
        root / "data" / name / "dataset.json",
        configs / "concepts" / f"{name}.yaml",
    ]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"'{path}' is there already, and nothing was written; take another name or move it.")
    return paths


def datalist_text(name: str, modality: str, entries: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the content of `dataset.json` from its entries by section."""
    content = {"name": name, "modality": {"0": modality}}
    return json.dumps(content | dict(entries), indent=1) + "\n"


def known_words(folder: Path, modality: str) -> dict[str, dict[str, str]]:
    """Return, by class, the sentences of the tables in a folder for images of a modality, without the titles.

    Tables that are named after another with "_ambiguous" are left out, as are files that are no table of these fields.
    """
    known: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*.yaml")):
        if path.stem.endswith("_ambiguous"):
            continue
        try:
            table = ConceptTable.load(path)
        except ValueError:  # one of the user's that is not finished yet
            continue
        if table.modality != modality or set(table.concepts) != set(FIELDS):
            continue
        for name, row in zip(table.classes, table.sentences, strict=True):
            known.setdefault(normalised(name), dict(zip(table.concepts, row, strict=True)))
    return known


def table_text(classes: Sequence[str], modality: str, known: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Return a concept table with finished titles, the sentences of known classes, and TODO placeholders elsewhere,
    which no run accepts."""
    names = tuple(classes)
    titles = ConceptTable(modality, ("title",), names, tuple((name,) for name in names)).as_format("name").sentences
    lines = [
        "# What each class looks like: one sentence per field, of ten to twenty-five words. Write what can be seen, no",
        "# function and no diagnosis. Give classes that look the same the same sentence: equal sentences are not set",
        f"# against each other in training. No run starts while a sentence begins with {PLACEHOLDER}. Set `reviewed`",
        "# to true once a reader who knows the anatomy has read every line.",
        f"modality: {_quoted(modality)}",
        "reviewed: false",
        f"concepts: [{', '.join(FIELDS)}]",
        "classes:",
    ]
    for name, (title,) in zip(names, titles, strict=True):
        lines += [f"  - name: {_quoted(name)}", f"    title: {_quoted(title)}"]
        words = (known or {}).get(normalised(name), {})
        lines += ["    # as in a table of this bundle: check that it is true of your images"] if words else []
        for field, what in FIELDS.items():
            if field != "title":
                lines += [f"    {field}: {json.dumps(words[field]) if words else f'{PLACEHOLDER} ({what})'}"]
        lines += [""]
    return "\n".join(lines)


def write_together(texts: Mapping[Path, str]) -> None:
    """Write all files or none, after validating the datalist.

    Raises:
        OSError: a file cannot be written, or one of them came into being meanwhile.
        ValueError: the datalist is none; see `load_datalist`.
    """
    partial = {path: partial_name(path) for path in texts}
    made = [path.parent for path in texts if not path.parent.exists()]
    placed: list[Path] = []
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial[path].write_text(text, encoding="utf-8")
            if path.suffix == ".json":
                load_datalist(partial[path])
        for path in texts:
            if path.exists():
                raise FileExistsError(f"'{path}' came into being meanwhile; nothing was written over it.")
            partial[path].rename(path)
            placed.append(path)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _quoted(text: str) -> str:
    """Quote a text for YAML if needed."""
    return text if re.fullmatch(r"[A-Za-z][\w ,.()/-]*", text) and not _is_keyword(text) else json.dumps(text)


def _is_keyword(text: str) -> bool:
    return text.casefold() in {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
