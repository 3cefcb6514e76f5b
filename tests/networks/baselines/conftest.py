"""What every baseline keeps, and plain counting."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.networks.nets import SwinUNETR
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from scripts.networks.baselines.swin_features import SwinFeatures
from scripts.networks.outputs import SupervisedOutput
from scripts.words.codes import ClassCode
from scripts.words.table import ConceptTable


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="session")
def count():
    return count_parameters


@pytest.fixture
def keeps_the_contract():
    """Check a small network: shape, batch independence, a gradient for every parameter, train equal to evaluation."""

    def check(network: nn.Module, image: torch.Tensor, channels: int, *, tolerance: float = 1e-4) -> None:
        assert len(image) == 2
        network.eval()
        with torch.no_grad():
            both = network(image)
            assert both.shape == (2, channels, *image.shape[2:])
            alone = torch.cat([network(image[:1]), network(image[1:])])
        torch.testing.assert_close(both, alone, atol=tolerance, rtol=tolerance)
        assert not torch.allclose(both[0], both[1], atol=10 * tolerance)
        output = network.train()(image)
        heads = [output.logits, *output.further] if isinstance(output, SupervisedOutput) else [output]
        loss = sum(head.square().mean() for head in heads)
        if isinstance(output, SupervisedOutput):
            assert len(output.weights) == len(heads)
            assert sum(output.weights) == pytest.approx(1.0)
        loss.backward()
        lost = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
        assert lost == []

    return check


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP text model, its vectors 12 wide, with a tokenizer that knows single letters."""
    folder = tmp_path_factory.mktemp("tiny_clip")
    letters = [chr(c) for c in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=8,
        intermediate_size=16,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        **ends,
    )
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.fixture
def small_swin():
    """Builds the features of a small Swin UNETR, for edges of 32 and more."""

    def build(seed: int = 0) -> SwinFeatures:
        torch.manual_seed(seed)
        return SwinFeatures(SwinUNETR(1, 1, feature_size=12, window_size=4, depths=(1, 1, 1, 1)))

    return build


@pytest.fixture(scope="session")
def large_swin():
    """The features of Swin UNETR 48 on the meta device, which cannot build it itself."""
    return SwinFeatures(SwinUNETR(1, 1, feature_size=48)).to("meta")


@pytest.fixture
def permuted():
    """A table with its classes in another order."""
    return lambda concepts, order: concepts.only([concepts.classes[n] for n in order])


@pytest.fixture
def image():
    return torch.randn(2, 1, 64, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def sixteen() -> ConceptTable:
    """Fifteen classes, with the background sixteen channels."""
    names = tuple(f"organ {n}" for n in range(15))
    return ConceptTable("CT", ("title",), names, tuple((f"The {name}.",) for name in names), reviewed=True)


@pytest.fixture
def tumours(table) -> ConceptTable:
    """Two kidneys and a liver, and a tumour of the liver."""
    code = ClassCode("SCT", "108369006", "Neoplasm", abnormal=True)
    return ConceptTable(
        modality="CT",
        concepts=table.concepts,
        classes=(*table.classes, "liver tumour"),
        sentences=(*table.sentences, ("A lump.", "In the liver.")),
        reviewed=True,
        codes=(None, None, None, code),
    )


@pytest.fixture(scope="session")
def published() -> tuple[ConceptTable, dict[str, tuple[str, ...]]]:
    """Twenty-five organs and seven lesions, as in the published ZePT, with hosts; no background."""
    names = (*(f"organ {n}" for n in range(25)), *(f"lesion {n}" for n in range(7)))
    table = ConceptTable("CT", ("title",), names, tuple((f"The {name}.",) for name in names), reviewed=True)
    return table, {f"lesion {n}": (f"organ {n}",) for n in range(7)}
