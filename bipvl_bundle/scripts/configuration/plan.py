"""The plan of a model: the settings of its training that whoever uses it must share."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from scripts.configuration.lint import walk_ids

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "monai", "transformers", "pytorch-ignite", "numpy")
NETWORK_ROOTS = ("network_def", "roi_size", "softmax")
ROOTS = (*NETWORK_ROOTS, "preprocessing_transforms")
"""The plan is these settings of a configuration and all that they refer to."""
BACKBONE = "backbone"
PLACES = {"bundle_root", "dataset_dir", "device", "ckpt_dir", "output_dir", "swap"}
WORDS = {"dataset_name", "concepts_file", "concept_table", "text_format", "text_encoder", "leave_out", "shuffle_seed"}
"""A model may be used with other words, which its own memory judges: stated otherwise they are no contradiction."""
LOADERS = {"LoadImaged": "scripts.data.loading.SafeLoadImaged"}
"""How files are read is no matter of the model: plans of earlier versions name MONAI's loader, which checks less."""
REQUESTED = {"concept_table"}
"""What a request changes; the settings that it is made of are followed one by one."""


def plan_of(config: Mapping[str, Any], roots: Sequence[str] = ROOTS, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the plan of a merged configuration as plain data, expressions as they are written.

    Args:
        config: of a training.
        roots: the settings that the plan begins with.
        without: settings that are left out, with what they alone refer to.
    """
    wanted, found = list(roots), {}
    while wanted:
        key = wanted.pop()
        if key in config and key not in found and key not in PLACES and key not in without:
            found[key] = config[key]
            wanted += _references(config[key])
    return _plain(found)


def _references(value: Any) -> Iterator[str]:
    texts = [text for _, text in walk_ids(value) if isinstance(text, str)]
    texts += [value] if isinstance(value, str) else []
    for text in texts:
        for id in ReferenceResolver.match_refs_pattern(text):
            yield ReferenceResolver.split_id(id)[0]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide a result."""
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in PACKAGES}}


def follow(
    parser: ConfigParser,
    plan: Mapping[str, Any],
    *,
    written: Mapping[str, Any],
    defaults: Mapping[str, Any],
    stated: Collection[str] = (),
    free: Collection[str] = (),
) -> list[str]:
    """Set what a configuration leaves at its defaults to what the model was trained with; return those keys.

    Numbers of the backbone, such as its width, follow the model too where an overlay has others, with a warning: the
    weights fit no other.

    Args:
        parser: of the configuration, which is changed.
        plan: of the model.
        written: what the training's files had where an option on the command line changed it.
        defaults: the entry file alone.
        stated: keys that the command line of this run sets.
        free: keys that may differ.

    Raises:
        ValueError: a setting is neither a default, nor what the training's files had, nor the model's own.
    """
    changed, contradictions = [], []
    for key, value in plan.items():
        if key in free or key in REQUESTED or (key in ("dataset_name", "concepts_file") and "prepare_data" in parser):
            continue  # scored cases are those that this run names
        now, value = _plain(parser.get(key)), _read_safely(value)
        if now == value:
            continue
        differences = list(_differences(value, now, key))
        left = key not in stated and (now is None or now in (written.get(key), _plain(defaults.get(key))))
        if left:
            changed.append(key)
        elif key == BACKBONE and key not in stated and all(_is_number(v) for pair in differences for v in pair[1:]):
            changed.append(key)
            told = (f"{id} = {_brief(trained)} (not {_brief(found)})" for id, trained, found in differences)
            logger.warning("The model's own is used: %s.", ", ".join(told))
        elif key not in WORDS:
            contradictions += differences
    if contradictions:
        raise ValueError(_contradiction(contradictions))
    for key in changed:
        parser[key] = _read_safely(plan[key])
    if changed:
        parser.parse(reset=True)
    return changed


def _contradiction(differences: Sequence[tuple[str, Any, Any]]) -> str:
    id, trained, found = differences[0]
    others = f" So it is with {', '.join(id for id, _, _ in differences[1:])}." if len(differences) > 1 else ""
    options = [f"--{id} {_argument(trained)}" for id, trained, _ in differences if _is_option(trained)]
    give = f"give {' '.join(options)}" if len(options) == len(differences) else "correct it"
    keys = list(dict.fromkeys(id.split("#")[0] for id, _, _ in differences))
    return (
        f"The model was trained with {id} = {_brief(trained)}; this run has {_brief(found)}.{others} Leave it out, and "
        f'the model\'s own is used, or {give}. To differ on purpose: --not_as_trained "{keys}"'
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_option(value: Any) -> bool:
    """Return whether a value can be given on the command line: a number, a switch, a name, or a list of them."""
    if isinstance(value, list):
        return all(not isinstance(entry, list) and _is_option(entry) for entry in value)
    return isinstance(value, bool | int | float) or (isinstance(value, str) and value[:1] not in ("$", "@", "%"))


def _argument(value: Any) -> str:
    return (
        shlex.quote(str(value)) if isinstance(value, str) else f'"{value}"' if isinstance(value, list) else str(value)
    )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _read_safely(value: Any) -> Any:
    """Return a setting of a plan with the loaders of this version."""
    if isinstance(value, Mapping):
        name = str(value.get("_target_", "")).rpartition(".")[2]
        known = {"_target_": LOADERS[name]} if name in LOADERS else {}
        return {key: _read_safely(entry) for key, entry in value.items()} | known
    return [_read_safely(entry) for entry in value] if isinstance(value, list) else value


def _differences(old: Any, new: Any, id: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            if old.get(key) != new.get(key):
                yield from _differences(old.get(key), new.get(key), f"{id}#{key}")
    else:
        yield id, old, new


def _brief(value: Any, longest: int = 160) -> str:
    text = json.dumps(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def require_same_plan(first: Mapping[str, Any], other: Mapping[str, Any], what: str) -> None:
    """Raise an error if two models' plans differ; a model without a plan is not compared.

    Raises:
        ValueError: they do; the message begins with `what`.
    """
    if not first or not other:
        return
    for id, wanted, found in _differences(_read_safely(dict(first)), _read_safely(dict(other)), ""):
        id = id.lstrip("#")
        if id.split("#")[0] not in {"fold", "seed", *WORDS}:
            raise ValueError(f"{what} was trained with {id} = {_brief(found)}, the first model with {_brief(wanted)}.")
