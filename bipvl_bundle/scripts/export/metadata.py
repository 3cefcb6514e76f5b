"""Description that is stored in an exported file: classes, words, and how to prepare an image."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai
import torch
from monai.bundle import ConfigParser
from torch import nn

from scripts.whole_file import digest_of
from scripts.words.table import ConceptTable

logger = logging.getLogger(__name__)

STEPS = ("load_transforms", "base_transforms", "intensity")
# Transforms of the bundle by what does the same to an image without its code; null: it checks, and changes nothing.
WITHOUT_SCRIPTS = {
    "scripts.data.loading.SafeLoadImaged": "LoadImaged",
    "scripts.data.transforms.SafeSpacingd": "Spacingd",
    "scripts.data.transforms.CheckCased": None,
}


def metadata_of(network: nn.Module, parser: ConfigParser, checkpoint: Path) -> dict[str, Any]:
    """Return a JSON-compatible description of a network to be exported.

    Args:
        network: of that configuration, with its weights.
        parser: of `inference.yaml` and its overlays.
        checkpoint: the file of the weights.

    Returns:
        ``classes`` in label order; ``channels``, the background among them; ``softmax``; ``words`` with the
        table's ``digest`` and ``sentences``, null for a network that reads none; ``in_channels``, ``roi_size``
        (voxels), ``spacing`` (mm), ``overlap``; ``preprocessing``, a configuration of MONAI transforms with the
        key ``image``, null where the bundle's own code is needed for it; ``versions``; ``checkpoint_sha256``.
    """
    classes = list(parser.get_parsed_content("class_names"))
    softmax = bool(parser.get_parsed_content("softmax"))
    return {
        "classes": classes,
        "channels": ["background"] * softmax + classes,
        "softmax": softmax,
        "words": _words(getattr(network, "concepts", None)),
        "in_channels": int(parser.get_parsed_content("in_channels")),
        "roi_size": [int(edge) for edge in parser.get_parsed_content("roi_size")],
        "spacing": [float(length) for length in parser.get_parsed_content("spacing")],
        "overlap": float(parser.get_parsed_content("sw_overlap")),
        "preprocessing": _preprocessing(parser),
        "versions": {
            "bundle": (parser.get("_meta_") or {}).get("version"),
            "torch": torch.__version__,
            "monai": monai.__version__,
        },
        "checkpoint_sha256": digest_of(checkpoint),
    }


def _words(table: ConceptTable | None) -> dict[str, Any] | None:
    if table is None:
        return None
    sentences = {
        name: dict(zip(table.concepts, row, strict=True))
        for name, row in zip(table.classes, table.sentences, strict=True)
    }
    return {"digest": table.digest, "modality": table.modality, "sentences": sentences}


def _preprocessing(parser: ConfigParser) -> dict[str, Any] | None:
    try:
        steps = [step for id in STEPS for step in _steps(parser, id)]
        json.dumps(steps)
    except (TypeError, ValueError) as error:
        logger.warning("The export does not say how to prepare an image, since that needs the bundle: %s", error)
        return None
    return {"_target_": "Compose", "transforms": steps}


def _steps(parser: ConfigParser, id: str) -> Iterator[dict[str, Any]]:
    for position in range(len(parser[id])):
        step = _resolved(parser, f"{id}::{position}")
        target = step["_target_"]
        step["_target_"] = WITHOUT_SCRIPTS.get(target, target)
        if step["_target_"] is None:
            continue
        if step["_target_"].startswith("scripts."):
            raise ValueError(f"{target} is no transform of MONAI")
        yield step


def _resolved(parser: ConfigParser, id: str) -> Any:
    """Return the configuration at an id with its references replaced by their values."""
    content = parser[id]
    if isinstance(content, dict):
        return {key: _resolved(parser, f"{id}::{key}") for key in content}
    if isinstance(content, list):
        return [_resolved(parser, f"{id}::{position}") for position in range(len(content))]
    if isinstance(content, str) and content.startswith(("@", "$")):
        return parser.get_parsed_content(id)
    return content
