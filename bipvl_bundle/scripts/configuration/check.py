"""Check of a config set before it runs: misspelt keys, unknown classes, references that lead nowhere.

``python -m scripts.configuration.check --config_file "['configs/train.yaml','configs/dataset_x.yaml']" --lr 1.0e-3``

The first file is the base and stands alone; the rest, and the options, may only change what it has.
monai.bundle accepts an unknown key without a word, so that a misspelt option leaves its default in force.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from monai.bundle import ConfigComponent, ConfigExpression, ConfigParser, ReferenceResolver
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS, MACRO_KEY, MERGE_KEY, merge_kv
from monai.utils import ensure_tuple

from scripts.configuration.console import prepare_console
from scripts.configuration.files import name_problems, read_config_file
from scripts.configuration.lint import lint, nearest_id, printed_id, walk_ids
from scripts.configuration.running import running_files, running_workflow

__all__ = ["check", "check_config", "check_run", "config_sets"]

logger = logging.getLogger(__name__)

SIBLINGS = {"train": "inference", "inference": "train"}
OVERRIDES = "the command line"
PATHS = ("_dir", "_file", "_path", "_root", "_name", "text_encoder", "start_from")
"""How the keys end whose values are names, which the command line may read as numbers (2024_11)."""
CAPITALS = {"true": "True", "false": "False", "null": "None", "none": "None"}
"""How the command line is told what YAML writes small; as it is it would be a text, and a text counts as true."""


def check(config_file: str | Sequence[str], meta_file: str | None = None, **overrides: Any) -> None:
    """Print the problems of a config set; exit status 1 if there is one. See `check_config`."""
    problems = check_config(config_file, meta_file, **overrides)
    for problem in problems:
        print(problem)
    print(f"{', '.join(map(str, ensure_tuple(config_file)))}: {len(problems) or 'no'} problem(s)")
    if problems:
        raise SystemExit(1)


def check_config(config_file: str | Sequence[str], meta_file: str | Path | None = None, **overrides: Any) -> list[str]:
    """Return the problems of a base file with its overlays and options; nothing is instantiated.

    - A key of an overlay or an option must exist in the base, in an earlier overlay, or in the base's sibling
      (`train.yaml` and `inference.yaml` of one folder); else the nearest known key is named. Free are
      ``+key``, keys that something else refers to, names that are no identifiers, whatever is put where the
      base has an empty mapping or one of descriptions, such as ``data_sets``, and the arguments of a component: the
      signature of its target judges those.
    - A switch or a number is not replaced by a text, such as "false" from the command line or YAML's 1e-4, nor the
      name of a file or folder by a number.
    - Every ``_target_`` imports and its arguments bind; every ``@`` reference resolves.
    - What folders are called after, such as ``dataset_name``, leads to no other place.

    Args:
        config_file: as for ``monai.bundle run``: one path or a list of paths.
        meta_file: for references into ``_meta_``; by default `metadata.json` beside the base, if any.
        overrides: options as for ``monai.bundle run``.

    Raises:
        FileNotFoundError: a file of the set does not exist.
        ValueError: a file is no mapping, or has a key twice.
    """
    files = [Path(path) for path in ensure_tuple(config_file)]
    sources = [(str(path), read_config_file(path)) for path in files] + [(OVERRIDES, overrides)]
    parser = ConfigParser(ConfigParser.load_config_files(str(files[0])))
    sibling = _sibling(files[0])
    findings = [found for source, pairs in sources[1:] for found in _merge(source, pairs, parser, sibling)]
    used = _used_ids(parser.get())
    problems = [text for id, text in findings if not _is_used(id, used)]
    base = ConfigParser(ConfigParser.load_config_files(str(files[0])))
    problems += [f"{_origin(id, sources)}: {text}" for id, text in _wrong_types(parser.get(), [base, sibling])]
    problems += [f"{_origin(id, sources)}: {text}" for id, text in name_problems(parser)]
    meta = Path(meta_file) if meta_file else files[0].parent / "metadata.json"
    if meta.is_file():
        parser.read_meta(str(meta))
    return problems + [f"{_origin(id, sources)}: {text}" for id, text in lint(parser)]


def check_run(entry: str = "train.yaml") -> None:
    """Raise an error if the running configuration of monai.bundle has a key that the entry file does not know.

    To be a step of ``initialize``, after the bundle root has joined ``sys.path``. What is judged is the result of
    the merge: overlays, options, `args_file`, ``ConfigWorkflow(**override)``; `running` says how that is known.
    Arguments of components are left to their constructors. Outside a workflow, or without the entry file,
    there is nothing to judge by: nothing happens, or a warning is logged.

    Args:
        entry: name of the file in which this call stands, beside the first config file of the run.

    Raises:
        ValueError: there is an unknown key; the nearest known key is named. The command line has given a text, such
            as "false", for a switch. A config file has a key twice. A name, such as ``dataset_name``, is a path.
    """
    workflow = running_workflow()
    if workflow is None:
        return
    path = workflow.config_root_path / entry
    if not path.is_file():
        logger.warning("The keys of this run are not checked: there is no %s. Let `entry` name its file.", path)
        return
    known = [ConfigParser(ConfigParser.load_config_files(str(path))), _sibling(path)]
    merged = workflow.parser.get()
    tracking: Any = DEFAULT_MLFLOW_SETTINGS["configs"]  # monai puts these in when it is to track an experiment
    used = _used_ids(merged) | set(tracking) | {workflow.run_id, workflow.init_id, workflow.final_id}
    new = [id for key, value in merged.items() for id in _new_ids(str(key), value, _lookup(str(key), known))]
    new = [id for id in new if not _is_used(id, used)]
    if new:
        known.append(workflow.parser)  # an overlay may have brought keys of its own, rightly
        unknown = ", ".join(f"'{printed_id(id)}' (nearest: '{nearest_id(id, known)}')" for id in new)
        raise ValueError(
            f"unknown key {unknown} in an overlay file or on the command line: {entry} has no such key and "
            "nothing reads it, so it would change nothing. Correct it; `python -m scripts.configuration.check` with "
            "the same files and options says where it stands"
        )
    for file in running_files():  # once more: for MONAI a key that stands there twice is a warning
        read_config_file(file)
    texts = [text for found in (_wrong_types(merged, known), name_problems(workflow.parser)) for _, text in found]
    if texts:
        raise ValueError("; ".join(texts))


def config_sets(
    config_dir: str | Path, both: Sequence[str] = ("dataset_", "backbone_", "baseline_", "text_", "paper")
) -> list[list[str]]:
    """Return the config sets to check: each entry file alone, then each overlay on its base.

    Ablations fit `inference.yaml` too unless one of their ``a#b`` keys reaches into a section that it lacks, such as
    the loss.

    Args:
        config_dir: the bundle's `configs`.
        both: how the names of those overlays begin that fit `inference.yaml` as well as `train.yaml`.
    """
    folder = Path(config_dir)
    entries = [path for path in (folder / "train.yaml", folder / "inference.yaml") if path.is_file()]
    overlays = [path for path in sorted(folder.glob("*.yaml")) if path not in entries]

    def fits(base: Path, overlay: Path) -> bool:
        if overlay.stem.endswith("_inference"):
            return base.stem == "inference"
        ablates = overlay.name.startswith("ablation_") and _reaches_only_into(base, overlay)
        return base.stem == "train" or overlay.name.startswith(tuple(both)) or ablates

    pairs = [(base, overlay) for overlay in overlays for base in entries if fits(base, overlay)]
    return [[str(base)] for base in entries] + [[str(base), str(overlay)] for base, overlay in pairs]


def _reaches_only_into(base: Path, overlay: Path) -> bool:
    """Return whether each ``a#b`` key of the overlay starts in a section of the base."""
    keys = [ReferenceResolver.normalize_id(key) for key in ConfigParser.load_config_file(overlay)]
    deep = [ReferenceResolver.split_id(key)[0] for key in keys if ReferenceResolver.sep in key]
    return set(deep) <= set(ConfigParser.load_config_file(base))


def _sibling(entry: Path) -> ConfigParser:
    path = entry.with_stem(SIBLINGS.get(entry.stem, entry.stem))
    return ConfigParser(ConfigParser.load_config_files(str(path)) if path.is_file() and path != entry else {})


def _wrong_types(config: Any, known: Sequence[ConfigParser]) -> Iterator[tuple[str, str]]:
    """Yield ids set to a text where a switch or number is known, or to a number where a name is, with the remedy."""
    for id, value in walk_ids(config):
        meant = CAPITALS.get(value) if isinstance(value, str) else None
        old = _lookup(id, known) if isinstance(value, str | int | float) else []
        if meant and old and not any(isinstance(content, str) for content in old):
            hint = "None only in an overlay, as null" if meant == "None" else f"on the command line write {meant}"
            yield id, f"'{printed_id(id)}' is the text '{value}', which would count as true; {hint}"
        elif isinstance(value, str) and _are_numbers(old) and not value.startswith(("$", "@", "%")):
            hint = ", which YAML reads with a point before the exponent: 1.0e-4" if _is_number(value) else ""
            yield id, f"'{printed_id(id)}' is the text '{value}'; expected a number{hint}"
        elif isinstance(value, int | float) and not isinstance(value, bool) and id.endswith(PATHS):
            yield id, f"'{printed_id(id)}' is the number {value}; a name of digits is written in two pairs of quotes"


def _are_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _is_number(text: str) -> bool:
    try:
        return isinstance(float(text), float)
    except ValueError:
        return False


def _lookup(id: str, known: Iterable[ConfigParser]) -> list[Any]:
    return [parser[id] for parser in known if id in parser]


def _new_ids(id: str, value: Any, old: Sequence[Any]) -> Iterator[str]:
    """Yield the ids in `value`, to be put at `id`, that no content in `old` has: the outermost of each branch."""
    if not old:
        if not id.startswith("_"):
            yield id
        return
    sections = [content for content in old if isinstance(content, dict) and content]
    if not isinstance(value, dict) or not sections:
        return
    if value.get("_target_") not in [section.get("_target_") for section in sections]:
        return
    if _is_list_of_names(sections):
        return
    for key, content in value.items():
        deeper = [section[key] for section in sections if key in section]
        if deeper or ("_target_" not in value and str(key).isidentifier()):
            yield from _new_ids(f"{id}{ReferenceResolver.sep}{key}", content, deeper)


def _is_list_of_names(sections: Sequence[dict[str, Any]]) -> bool:
    """Return whether the keys of mappings are names that users choose, each with a description, as in ``data_sets``."""
    contents = [content for section in sections for content in section.values()]
    return all(isinstance(content, dict) and not ConfigComponent.is_instantiable(content) for content in contents)


def _merge(
    source: str, pairs: Mapping[str, Any], parser: ConfigParser, sibling: ConfigParser
) -> Iterator[tuple[str, str]]:
    """Merge `pairs` into `parser` as monai does; yield problems with the id whose use by a reference excuses them."""
    known = [parser, sibling]
    for key, value in pairs.items():
        extends = source is not OVERRIDES and key.startswith(MERGE_KEY)
        id = ReferenceResolver.normalize_id(key[1:] if extends else key)
        free = extends or _is_argument(id, parser)
        found = []
        for new in [] if free else _new_ids(id, value, _lookup(id, known)):
            hint = f"the nearest known key is '{nearest_id(new, known)}'"
            found.append((new, f"{source}: unknown key '{printed_id(new)}', which nothing reads; {hint}"))
        if not extends and _loses_target(value, parser.get(id)):
            hint = f"to change one argument write '{printed_id(id)}#{next(iter(value), 'argument')}'"
            text = f"'{printed_id(id)}' replaces a component by a mapping without `_target_`; {hint}"
            found.append(("", f"{source}: {text}"))
        try:
            merge_kv(parser, key, value) if extends else parser.update({id: value})
        except (KeyError, IndexError, ValueError) as error:
            hint = f"the nearest known key is '{nearest_id(id, known)}'"
            found = [("", f"{source}: '{printed_id(id)}' has no place in the base ({error}); {hint}")]
        yield from found


def _is_argument(id: str, parser: ConfigParser) -> bool:
    """Return whether `id` is an argument of a component, which the signature of its target judges."""
    parent, _ = ReferenceResolver.split_id(id, last=True)
    return bool(parent) and ConfigComponent.is_instantiable(parser.get(parent))


def _loses_target(value: Any, old: Any) -> bool:
    return ConfigComponent.is_instantiable(old) and isinstance(value, dict) and "_target_" not in value


def _origin(id: str, sources: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the last source that sets `id` or something that contains it."""
    for source, pairs in reversed(sources):
        keys = (ReferenceResolver.normalize_id(key.lstrip(MERGE_KEY)) for key in pairs)
        if any(id == key or id.startswith(key + ReferenceResolver.sep) for key in keys):
            return source
    return sources[0][0]


def _used_ids(config: Any) -> set[str]:
    """Return all ids named by references, macros and import statements of `config`."""
    used: set[str] = set()
    for id, value in walk_ids(config):
        if isinstance(value, str):
            with suppress(ValueError):  # a relative id beyond the root: the linter tells of it
                value = ConfigParser.resolve_relative_ids(id, value)
            used.update(ReferenceResolver.match_refs_pattern(value))
            if ConfigExpression.is_import_statement(value):
                used.add(id)
            if value.startswith(MACRO_KEY):
                used.add(value[len(MACRO_KEY) :])
    return used - {""}


def _is_used(id: str, used: set[str]) -> bool:
    return any(name == id or name.startswith(id + ReferenceResolver.sep) for name in used)


if __name__ == "__main__":
    import fire

    prepare_console()
    fire.Fire(check)
