from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.networks.nets import SwinUNETR
from transformers import BertConfig, BertModel, BertTokenizerFast

from scripts.networks.backbones.base import FusableBackbone
from scripts.networks.backbones.swin_unetr import SwinUNETRBackbone
from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.networks.text_encoder import StagedTextEncoder
from scripts.words.table import ConceptTable

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def bundle_root() -> Path:
    return REPOSITORY / "bipvl_bundle"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of four layers with a tokenizer that knows single letters."""
    folder = tmp_path_factory.mktemp("tiny_bert")
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture
def table() -> ConceptTable:
    """Three classes, two concepts; the kidneys have one shape."""
    return ConceptTable(
        modality="CT",
        concepts=("shape", "location"),
        classes=("right kidney", "left kidney", "liver"),
        sentences=(("A bean.", "On the right."), ("A bean.", "On the left."), ("A wedge.", "Top right.")),
        reviewed=True,
    )


@pytest.fixture
def make_network(tiny_bert: Path, table: ConceptTable):
    """Builds a tiny BiPVL-Seg in the published form, four output channels with the background, or with another head;
    by default on a Swin UNETR, for edges of 32 and more. `make_backbone` takes the number of output channels."""

    def make_swin(channels: int) -> FusableBackbone:
        sizes = {"feature_size": 12, "window_size": 4, "depths": (1, 1, 1, 1)}
        return SwinUNETRBackbone(SwinUNETR(in_channels=1, out_channels=channels, **sizes))

    def make(
        seed: int = 0,
        concepts: ConceptTable = table,
        make_backbone: Callable[[int], FusableBackbone] = make_swin,
        head: str = "channels",
        **arguments,
    ) -> BiPVLSeg:
        torch.manual_seed(seed)
        channels = len(concepts.classes) + int(arguments.get("softmax", True)) if head == "channels" else 8
        backbone = make_backbone(channels)
        encoder = StagedTextEncoder(str(tiny_bert), stage_layers=(1, 1, 1, 1), dropout=0.0)
        return BiPVLSeg(backbone, encoder, concepts, head=head, **arguments)

    return make


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 1, 64, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def awaken():
    """Moves every parameter a little, so that paths that start at zero carry signal."""

    def move(module: torch.nn.Module, seed: int = 3) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        return module

    return move
