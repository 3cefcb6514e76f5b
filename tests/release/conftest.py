from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from scripts.release.bundle import release_bundle
from scripts.release.figures import READING, RECORD, SCORES, Figures
from scripts.whole_file import digest_of
from scripts.words.table import ConceptTable

HEAD = "case,class,dice,hd95_mm,nsd,missed,spurious,voxels_reference,voxels_prediction\n"
Describe = Callable[..., Path]


@pytest.fixture(scope="session")
def words(bundle_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom's classes with a sentence each that a BERT of single letters can read."""
    classes = ConceptTable.load(bundle_root / "configs/concepts/phantom.yaml").classes
    entries = [{"name": name, "shape": f"{name}.", "location": f"Place {i}."} for i, name in enumerate(classes)]
    path = tmp_path_factory.mktemp("words") / "mine.yaml"
    path.write_text(yaml.safe_dump({"modality": "CT", "concepts": ["shape", "location"], "classes": entries}))
    return path


@pytest.fixture(scope="session")
def tiny_options(tiny_bert: Path, words: Path) -> dict[str, Any]:
    return {
        "dataset_name": "mine",
        "prepare_data": None,
        "text_encoder": str(tiny_bert),
        "concepts_file": str(words),
        "roi_size": [64, 32, 32],
        "spacing": [8.0, 8.0, 8.0],
        "backbone#network#depths": [1, 1, 1, 1],
        "max_epochs": 7,
    }


@pytest.fixture(scope="session")
def weights(bundle_root: Path, tiny_options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of that configuration, moved away from its initialisation, in half precision."""
    parser = ConfigParser()
    parser.read_config([str(bundle_root / "configs/train.yaml")])
    parser.update({key.replace("#", "::"): value for key, value in tiny_options.items()})
    network = parser.get_parsed_content("network_def")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator)).copy_(parameter.half())
    state = {name: v.half() if v.is_floating_point() else v for name, v in network.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save({"model": state}, path)
    return path


@pytest.fixture(scope="session")
def figures(weights: Path, words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases; the first class is missed in the second."""
    folder = tmp_path_factory.mktemp("figures")
    classes = ConceptTable.load(words).classes
    rows = [f"{case},{name},0.9,2.0,0.8,False,False,10,10\n" for case in "ab" for name in classes]
    rows[len(classes)] = f"b,{classes[0]},0,nan,0,True,False,9,0\n"
    (folder / SCORES).write_text(HEAD + "".join(rows))
    (folder / READING).write_text("The words decide.\n\n| wording | DSC |\n| --- | --- |\n| right words | 0.900 |\n")
    Figures(folder, "test", 2.0, digest_of(weights), "float16").record()
    assert (folder / RECORD).is_file()
    return folder


@pytest.fixture(scope="session")
def content(weights: Path, figures: Path, tiny_options: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "bipvl_mine",
        "title": "A tiny model",
        "version": "1.2.0",
        "changelog": {"1.2.0": "Smaller", "1.0.0": "First"},
        "description": "Segments what it can.",
        "data_source": "Made up, by a test",
        "data_license": "None needed.",
        "training": "It was not.",
        "limits": "It knows nothing.",
        "options": tiny_options,
        "weights": str(weights),
        "figures": str(figures),
        "references": ["A. Author. A book."],
    }


@pytest.fixture
def describe(content: dict[str, Any], tmp_path: Path) -> Describe:
    """Writes the description with changes; None leaves a field out."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "description.yaml"
        changed = {key: value for key, value in {**content, **changes}.items() if value is not None}
        path.write_text(yaml.safe_dump(changed))
        return path

    return write


@pytest.fixture(scope="session")
def bundle(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of that description."""
    folder = tmp_path_factory.mktemp("released")
    (folder / "description.yaml").write_text(yaml.safe_dump(content))
    return release_bundle(str(folder / "description.yaml"), str(folder))
