"""Pages of a released bundle: docs/README.md after the Model Zoo's template, README.md as a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCardData
from monai.bundle import ConfigParser

from scripts.messages.phrases import by
from scripts.messages.tables import markdown
from scripts.networks.weights import count_parameters
from scripts.release.description import Release
from scripts.release.figures import METRICS, Figures
from scripts.release.flatten import way_of_segmenting
from scripts.words.table import ConceptTable

TEMPLATE = Path(__file__).with_name("card.md")
SPLITS = {"test": "test cases that nothing was chosen on", "validation": "validation cases, on which it was chosen"}


def card(
    release: Release,
    parser: ConfigParser,
    table: ConceptTable,
    figures: Figures,
    metadata: dict[str, Any],
    weights: dict[str, torch.Tensor],
) -> str:
    """Return the page as Markdown, with links relative to the bundle's root."""
    means = figures.summaries()[-1]
    dataset_name = parser.get_parsed_content("dataset_name")
    packages = {"monai": "monai_version", "numpy": "numpy_version"}
    pins = [f"{name}=={metadata[key]}" for name, key in packages.items()]
    pins += [f"{name}=={version}" for name, version in metadata["required_packages_version"].items()]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        docs="docs/",
        name=release.name,
        title=release.title,
        description=release.description,
        data_source=release.data_source,
        training=release.training,
        limits=release.limits,
        license=release.license,
        backbone=parser.get("backbone::network::_target_", parser.get("backbone::_target_")).rsplit(".", 1)[-1],
        spacing=by(parser.get_parsed_content("spacing")),
        roi=by(parser.get_parsed_content("roi_size")),
        intensity=", ".join(step["_target_"].rsplit(".", 1)[-1] for step in parser.get("intensity")),
        learning_rate=f"{parser.get_parsed_content('learning_rate'):g}",
        text_learning_rate=f"{min(map(parser.get_parsed_content, ('learning_rate', 'text_learning_rate'))):g}",
        max_epochs=parser.get_parsed_content("max_epochs"),
        batch_size=parser.get_parsed_content("batch_size"),
        in_channels=parser.get_parsed_content("in_channels"),
        parameters=f"{count_parameters(weights):,}",
        precision=figures.precision,
        image_classes=metadata["image_classes"],
        pred_classes=metadata["pred_classes"],
        label_classes=metadata["label_classes"],
        cases=means.cases,
        split=SPLITS[figures.evaluate_on],
        tolerance=f"{figures.nsd_tolerance:g}",
        table="\n".join(
            markdown(["class", *(title for _, title in METRICS.values()), "missed", "cases"], figures.rows())
        ),
        segmenting=_segmenting(way_of_segmenting(release), figures.settings),
        reading="\n".join(figures.reading()) or "Not tested.",
        table_name=f"{dataset_name}.yaml",
        dataset_name=dataset_name,
        reviewed="reviewed by a reader who knows the anatomy"
        if table.reviewed
        else "not yet reviewed by a radiologist",
        words="\n".join(
            markdown(["class", *table.concepts], [[n, *s] for n, s in zip(table.classes, table.sentences, strict=True)])
        ),
        install=f"pip install torch=={metadata['pytorch_version']}\npip install {' '.join(pins)}",
        references="\n".join(f"- {reference}" for reference in metadata["references"]),
    )


def _segmenting(settings: Mapping[str, Any], scored: Mapping[str, Any]) -> str:
    """Return a paragraph on how masks are made, and whether they were scored so; empty if by the defaults."""
    texts = []
    if settings:
        texts.append(f"By default inference goes by {_listed(settings)}; options with other values replace them.")
    if axes := settings.get("mirror_axes"):
        texts.append(f"It averages over mirrored images, which takes {2 ** len(axes)} times as long as without.")
    if dict(settings) != dict(scored):
        texts.append(f"The scores above were taken with {_listed(scored) or 'none of them'}.")
    return "\n\n" * bool(texts) + " ".join(texts)


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}: {json.dumps(value)}`" for key, value in settings.items())


def front_matter(release: Release, figures: Figures, modality: str) -> str:
    """Return the model card's header for Hugging Face's hub."""
    names = {"dice": "mean DSC", "hd95_mm": "mean HD95 (mm)", "nsd": "mean NSD"}
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=release.name,
            dataset_name=release.data_source.split(",")[0],
            dataset_split=figures.evaluate_on,
            metric_type=metric,
            metric_name=names[metric],
            metric_value=value,
        )
        for metric, value in figures.means().items()
    ]
    header = ModelCardData(
        model_name=release.name,
        eval_results=results,
        license=release.license,
        library_name="monai",
        pipeline_tag="image-segmentation",
        tags=["monai", "medical", "3d-segmentation", "text-guided", modality.lower()],
    )
    return f"---\n{header.to_yaml()}\n---\n\n"
