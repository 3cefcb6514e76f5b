"""The metadata.json of a released bundle, after the Model Zoo's schema."""

from __future__ import annotations

import json
from typing import Any

from monai.bundle import ConfigParser

from scripts.release.description import BUNDLE_ROOT, Release
from scripts.release.figures import Figures
from scripts.words.table import ConceptTable


def metadata(release: Release, parser: ConfigParser, table: ConceptTable, figures: Figures) -> dict[str, Any]:
    """Return the source bundle's metadata with the release's own values.

    Args:
        release: its description.
        parser: of its train.yaml.
        table: its words.
        figures: its scores, for `eval_metrics`.
    """
    softmax = bool(parser.get_parsed_content("softmax"))
    channels = ["background"] * softmax + list(table.classes)
    source = json.loads((BUNDLE_ROOT / "configs/metadata.json").read_text(encoding="utf-8"))
    kind = "softmax" if softmax else "sigmoid"
    return source | {
        "version": release.version,
        "changelog": dict(release.changelog),
        "name": release.name,
        "description": " ".join([release.description, *figures.reading()[:1]]),
        "data_source": release.data_source,
        "image_classes": release.image_classes or f"{table.modality}, prepared as in train.yaml",
        "label_classes": ", ".join(f"{value} {name}" for value, name in enumerate(channels, int(not softmax))),
        "pred_classes": f"{len(channels)} channels of logits ({kind}): {', '.join(channels)}",
        "eval_metrics": {f"mean_{name}": value for name, value in figures.means().items()},
        "references": [*source["references"], *release.references],
        "network_data_format": _data_format(parser, table, channels),
    }


def _data_format(parser: ConfigParser, table: ConceptTable, channels: list[str]) -> dict[str, Any]:
    shape = [int(edge) for edge in parser.get_parsed_content("roi_size")]
    common = {"spatial_shape": shape, "dtype": "float32", "is_patch_data": True}
    in_channels = int(parser.get_parsed_content("in_channels"))
    image = {
        "type": "image",
        "format": "hounsfield" if table.modality.upper() == "CT" else "magnitude",
        "modality": table.modality,
        "num_channels": in_channels,
        **common,
        "value_range": _value_range(parser),
        "channel_def": {str(i): "image" if in_channels == 1 else f"image {i + 1}" for i in range(in_channels)},
    }
    pred = {
        "type": "image",
        "format": "segmentation",
        "num_channels": len(channels),
        **common,
        "value_range": [],
        "channel_def": {str(i): name for i, name in enumerate(channels)},
    }
    return {"inputs": {"image": image}, "outputs": {"pred": pred}}


def _value_range(parser: ConfigParser) -> list[float]:
    """Return the interval that a window maps to; empty for z-scores."""
    for step in parser.get("intensity"):
        if step["_target_"] == "ScaleIntensityRanged" and step.get("clip"):
            return [step["b_min"], step["b_max"]]
    return []
