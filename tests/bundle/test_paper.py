"""`paper.yaml` brings back the published form, parameter for parameter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from torch import nn

CONFIGS = Path(__file__).resolve().parents[2] / "bipvl_bundle" / "configs"
# Of version 0.3.0, which had no other form: small Swin UNETR, eight classes of the phantom. The
# text encoder's own numbers grow with its vocabulary.
PUBLISHED = {"backbone": 3_944_063, "fusions": 1_672_712, "projection": 20_096, "class_embedding": 19_785}
TENSORS = {"backbone": 159, "fusions": 216, "projection": 4, "class_embedding": 6}


def network(entry: str, *overlays: str) -> nn.Module:
    parser = ConfigParser(ConfigParser.load_config_files([str(CONFIGS / name) for name in (entry, *overlays)]))
    parser["bundle_root"] = str(CONFIGS.parent)
    return parser.get_parsed_content("network_def")


@pytest.mark.parametrize("entry", ["train.yaml", "inference.yaml"])
def test_network_is_the_published_one(entry: str) -> None:
    state = network(entry, "paper.yaml").state_dict()
    del state["_extra_state"]
    sizes, tensors = Counter[str](), Counter[str]()
    for name, tensor in state.items():
        sizes[name.split(".")[0]] += tensor.numel()
        tensors[name.split(".")[0]] += 1
    assert {part: sizes[part] for part in PUBLISHED} == PUBLISHED
    assert set(sizes) == {*PUBLISHED, "text_encoder"}
    assert {part: tensors[part] for part in TENSORS} == TENSORS


def test_default_is_not() -> None:
    assert {"word_head"} < {name.split(".")[0] for name in network("train.yaml").state_dict()}


def test_sets_that_reproduce_the_paper_name_it() -> None:
    for path in sorted((CONFIGS / "experiments").glob("on_*.yaml")):
        assert "paper.yaml]" in path.read_text(), path.name
