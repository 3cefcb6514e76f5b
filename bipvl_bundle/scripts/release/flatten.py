"""Merges entry files and overlays into one configuration."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.utils import merge_kv

from scripts.configuration.check import check_config
from scripts.configuration.lint import lint
from scripts.configuration.plan import follow
from scripts.release.description import BUNDLE_ROOT, Release

ENTRIES = ("train.yaml", "inference.yaml")
PLACES = {  # where a released bundle keeps what its overlays kept elsewhere
    "ckpt_dir": "$@bundle_root + '/models'",
    "text_encoder": "$@bundle_root + '/models/text_encoder'",
}
# Of a machine or of one run, and therefore not to be carried over from the options of a training.
PRIVATE = {
    *("bundle_root", "dataset_dir", "ckpt_dir", "ckpt_path", "output_dir", "metrics_dir", "predictions_dir"),
    *("device", "resume", "overwrite", "start_from", "process_group", "rank", "ensemble"),
}


def flatten(release: Release, entry: str, record: Mapping[str, Any] | None = None) -> ConfigParser:
    """Return the configuration of an entry file merged with the release's overlays and options.

    What they change in the other entry file alone is left out. What they leave at its default is as the model was
    trained, if its file says so (`record`).

    Raises:
        FileNotFoundError: an overlay does not exist.
        ValueError: an option is of a machine, or contradicts the model's training, or the configuration has a
            problem; all problems are listed.
    """
    private = sorted(key for key in release.options if _root(key) in PRIVATE)
    if private:
        raise ValueError(
            f"The options of {release.name} set {', '.join(private)}, which belong to a machine and not to a "
            "released bundle. Remove them; the data for measuring are given as `dataset_dir` of the command."
        )
    files = [BUNDLE_ROOT / "configs" / name for name in release.overlays]
    problems = check_config([str(path) for path in (BUNDLE_ROOT / "configs" / ENTRIES[0], *files)], **release.options)
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLE_ROOT / "configs" / entry))
    foreign = _keys_of_the_other(entry)
    layers = [*map(ConfigParser.load_config_file, files), release.options]
    for key, value in (pair for layer in layers for pair in layer.items()):
        if _root(key) not in foreign:
            merge_kv(parser, ReferenceResolver.normalize_id(key), value)
    plan = (record or {}).get("plan", {})
    if plan:
        defaults, stated = ConfigParser.load_config_file(BUNDLE_ROOT / "configs" / entry), map(_root, release.options)
        follow(parser, plan, written=(record or {}).get("written", {}), defaults=defaults, stated=set(stated))
    problems += [text for _, text in lint(ConfigParser(copy.deepcopy(parser.get())))] if not problems else []
    if problems:
        raise ValueError(f"The configuration of {release.name} has problems:\n" + "\n".join(problems))
    parser["bundle_root"] = str(BUNDLE_ROOT)
    return parser


def _keys_of_the_other(entry: str) -> set[str]:
    """Return the keys that only the other entry file has, such as a learning rate for inference."""
    both = {name: set(ConfigParser.load_config_file(BUNDLE_ROOT / "configs" / name)) for name in ENTRIES}
    return set().union(*both.values()) - both[entry]


def way_of_segmenting(release: Release) -> dict[str, Any]:
    """Return the options by which masks are made from the network's output, such as ``mirror_axes``.

    They are those of inference.yaml and evaluate.yaml that no training has.
    """
    train, *both = (
        set(ConfigParser.load_config_file(BUNDLE_ROOT / "configs" / name)) for name in (*ENTRIES, "evaluate.yaml")
    )
    return {key: value for key, value in release.options.items() if key in set.intersection(*both) - train}


def with_settings(text: str, settings: Mapping[str, Any]) -> str:
    """Return the text of a configuration with other values at its top level; its comments stay."""
    for key, value in settings.items():
        line = f"{key}: {json.dumps(value)}".replace("\\", r"\\")
        text, count = re.subn(rf"(?m)^{key}: .*?(?= #|$)", line, text)
        assert count == 1, key
    return text


def released(parser: ConfigParser, dataset_name: str) -> dict[str, Any]:
    """Return a merged configuration with the paths of a released bundle."""
    content = {key: value for key, value in parser.get().items() if key != "_meta_"}
    table = f"$@bundle_root + '/configs/concepts/{dataset_name}.yaml'"
    content |= {"bundle_root": ".", **PLACES, "concepts_file": table, "variant": []}
    if "predictions_dir" in content:  # inference.yaml: a folder of images, not of a data set
        content["dataset_dir"] = "$@bundle_root + '/images'"
    return content


def write_yaml(path: Path, content: Mapping[str, Any], header: str) -> None:
    """Write a configuration in its order, below a comment."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    text = yaml.safe_dump(dict(content), sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{comment}\n{text}", encoding="utf-8")


def _root(key: str) -> str:
    return key.split("#")[0].split("::")[0].lstrip("+")
