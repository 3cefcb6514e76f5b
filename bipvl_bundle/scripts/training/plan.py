"""What a model's file tells of its training, and runs that follow it."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from scripts.configuration.plan import NETWORK_ROOTS, follow, plan_of, versions
from scripts.configuration.running import running_files, running_options, running_workflow
from scripts.data.cases import Item
from scripts.data.image_kind import describe_images
from scripts.networks.bert import pinned
from scripts.networks.weights import read_checkpoint, record_of
from scripts.training.checkpoints import PLAN
from scripts.words.table import ConceptTable

logger = logging.getLogger(__name__)


def training_record(
    concepts: ConceptTable,
    items: Sequence[Item] = (),
    data_sets: Mapping[str, Mapping[str, Any]] | None = None,
    text_encoder: str | None = None,
) -> dict[str, Any]:
    """Return what the model's file is to know of the running training, and all of it as the text of `plan.json`.

    Args:
        concepts: the words.
        items: the training cases.
        data_sets: by name, the plan of the preprocessing of each, where there are several.
        text_encoder: a folder or a name on the hub; the plan has it with the commit that it leads to.

    Returns:
        ``plan`` (`plan_of`), ``data_sets``, ``written`` (what the files had where options changed it), ``words``
        (classes and digest), ``images`` (`describe_images`), ``versions``, ``plan_sha256`` (of `plan.json`), and under
        ``PLAN`` that text, which `BestModel` writes beside the model; empty outside a workflow of monai.bundle.
    """
    workflow = running_workflow()
    if workflow is None:
        return {}
    parts = {"roots": NETWORK_ROOTS, "without": ["concept_table"]} if data_sets else {}
    plan, files = plan_of(workflow.parser.get(), **parts), [str(path) for path in running_files()]
    of_files = plan_of(_merged(files), **parts) if files else plan
    if text_encoder is not None and not Path(text_encoder).is_dir() and "text_encoder" in plan:
        plan["text_encoder"] = pinned(text_encoder)
    record: dict[str, Any] = {
        "plan": plan,
        **({"data_sets": data_sets} if data_sets else {}),
        "written": {key: value for key, value in of_files.items() if plan.get(key) != value},
        "words": {"classes": list(concepts.classes), "digest": concepts.digest},
        "images": describe_images(items),
        "versions": versions(),
    }
    whole = {"command": shlex.join(sys.argv), **record, "configuration": workflow.parser.get()}
    text = json.dumps(whole, indent=2, default=str) + "\n"
    return {**record, "plan_sha256": hashlib.sha256(text.encode()).hexdigest(), PLAN: text}


def _of_data_set(record: Mapping[str, Any], name: Any, path: str | Path) -> Mapping[str, Any]:
    """Return how a model that has learnt from several data sets had the images of one of them preprocessed."""
    plans = record.get("data_sets", {})
    found = next((plan for plan in plans.values() if plan.get("dataset_name") == name), None)
    if plans and found is None:
        logger.warning(
            "%s was trained on the data sets %s; images are preprocessed as this run says. To do it as for one of "
            "them, put its overlay on the configuration.",
            path,
            ", ".join(plans),
        )
    return found or {}


def _merged(files: list[str]) -> dict[str, Any]:
    parser = ConfigParser()
    parser.read_config(files)
    return parser.get()


def follow_model(
    parser: ConfigParser,
    path: str | Path,
    *,
    defaults: Mapping[str, Any],
    stated: Collection[str] = (),
    free: Collection[str] = (),
) -> list[str]:
    """Let a configuration use a model as it was trained; return the settings that this changes.

    Args:
        parser: of the configuration, which is changed.
        path: the model's file; one that does not say how it was trained changes nothing.
        defaults: values that count as not stated; the configuration itself lets the model decide all.
        stated: keys that the command line sets.
        free: keys that may differ.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, or a setting contradicts it; see `follow`.
    """
    record = record_of(read_checkpoint(path, quiet=True, keep=True))
    if "plan" not in record:
        logger.info("%s does not say how it was trained: the settings of this run are used as they are.", path)
        return []
    plan = {**record["plan"], **_of_data_set(record, parser.get("dataset_name"), path)}
    written = record.get("written", {})
    changed = follow(parser, plan, written=written, defaults=defaults, stated=stated, free=free)
    if changed:
        logger.info("Used as the model was trained: %s.", ", ".join(changed))
    return changed


def follow_plan(path: str | Path, entry: str, not_as_trained: Collection[str] = ()) -> None:
    """Let the running configuration use a model as it was trained; to be a step of ``initialize`` before others.

    Args:
        path: the model's file.
        entry: the entry file's name, whose values count as not stated.
        not_as_trained: keys that may differ.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as for `follow_model`.
    """
    workflow = running_workflow()
    if workflow is None:
        return
    file = workflow.config_root_path / entry
    defaults = ConfigParser.load_config_file(file) if file.is_file() else {}
    follow_model(workflow.parser, path, defaults=defaults, stated=running_options(), free=not_as_trained)
