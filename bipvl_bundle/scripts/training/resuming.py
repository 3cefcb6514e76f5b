"""Settings of a run that is resumed: those of its beginning, save for what may change."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from scripts.configuration.lint import printed_id, walk_ids
from scripts.configuration.running import running_workflow
from scripts.messages.phrases import some

logger = logging.getLogger(__name__)

TAKEN = (
    *("dataset_dir", "prepare_data", "concepts_file", "text_encoder"),
    *("device", "val_interval", "cache_rate", "num_workers", "amp", "amp_kwargs", "sw_batch_size", "sw_overlap"),
    "validate",
)
"""What a resumed run takes anew, and says so: where the data are, how fast it goes, when and how it is validated."""
UNSAID = (
    *("_meta_", "imports", "bundle_root", "folder_name", "variant", "process_group", "rank", "start_weights"),
    *("output_dir", "ckpt_dir", "metrics_dir", "resume", "overwrite", "initialize", "training", "run", "finalize"),
    *("network", "loss", "train#sampler", "train#dataloader#sampler", "train#dataloader#shuffle", "report"),
)
"""What it takes anew without a word: how it is called and in how many processes, what wraps `network_def` and
`loss_def`, and deals out the cases."""
OWN_CHECK = ("max_epochs",)
"""Settings that `LastState` judges itself."""
WORDS = "the words' digest"
"""Key of the content of the concept table."""


def kept_settings() -> dict[str, str]:
    """Return the settings of the running configuration, as JSON by key, which `require_same_settings` compares.

    ``batch_size`` is that of all processes together, and the concept table counts by its content. Empty outside a
    workflow of monai.bundle.
    """
    workflow = running_workflow()
    config: Mapping[str, Any] = workflow.parser.get() if workflow is not None else {}
    tracking = {str(key) for key in config if str(key).startswith(("tracking_", "experiment_name", "run_name"))}
    free = {*OWN_CHECK, *tracking, *UNSAID}
    leaves = ((printed_id(id), value) for id, value in walk_ids(dict(config)) if not isinstance(value, dict | list))
    kept = {id: json.dumps(value, default=str) for id, value in leaves if not _begins_with(id, free)}
    if workflow is not None and "concept_table" in config:
        digest = getattr(workflow.parser.get_parsed_content("concept_table"), "digest", None)
        kept |= {WORDS: json.dumps(digest)} if digest else {}
    batch = config.get("batch_size")
    return {**kept, "batch_size": f"{batch * idist.get_world_size()}"} if isinstance(batch, int) else kept


def _begins_with(id: str, keys: Collection[str]) -> bool:
    parts = id.split("#")
    return any("#".join(parts[:length]) in keys for length in range(1, len(parts) + 1))


def require_same_settings(then: Mapping[str, str], now: Mapping[str, str], path: Path) -> None:
    """Raise an error if a run is resumed with other settings than it was begun with; log what of `TAKEN` has changed.

    Args:
        then: by `kept_settings`, as the state has them; empty if it does not say.
        now: of this run; empty outside a workflow.
        path: of the state.

    Raises:
        ValueError: they differ; the message names each with both values.
    """
    if not then or not now:
        logger.info("%s does not say with which settings its run was begun; they are not compared.", path)
        return
    changed = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    said = {key: f"{key} = {then.get(key, 'nothing')}, now {now.get(key, 'nothing')}" for key in changed}
    refused = [said[key] for key in changed if not _begins_with(key, TAKEN) and (key != WORDS or key in then)]
    if refused:
        raise ValueError(
            f"{path} belongs to a run with {some(refused)}. A run is resumed with the settings that it was begun with. "
            "Leave them out, or begin a new run from its model (--start_from, with an --output_dir of its own)."
        )
    taken = [said[key] for key in changed if _begins_with(key, TAKEN) and key in then]
    if taken:
        logger.warning("The rest of the run has %s.", some(taken, most=len(taken)))
