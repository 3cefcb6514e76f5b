"""What every baseline keeps, and plain counting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.networks.outputs import SupervisedOutput


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
