from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from scripts.networks.joint_linear import JointLinear


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return [nn.Linear(6, width).double() for width in (4, 4, 3)]


@pytest.fixture
def tokens():
    return torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def apart(layers, tokens):
    return torch.cat([layer(tokens) for layer in layers], dim=-1)


def test_equals_the_layers_one_by_one_with_their_gradients(layers, tokens):
    gradients = []
    for apply in (lambda: JointLinear()(tokens, *layers), lambda: apart(layers, tokens)):
        for layer in layers:
            layer.zero_grad()
        result = apply()
        result.sin().sum().backward()
        gradients.append([result.detach(), *(p.grad.clone() for layer in layers for p in layer.parameters())])
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_weights_are_stacked_once_in_evaluation(layers, tokens, monkeypatch):
    joint, stacked = JointLinear(), []
    monkeypatch.setattr(torch, "cat", lambda parts, cat=torch.cat: stacked.append(parts) or cat(parts))
    for _ in range(3):
        joint(tokens, *layers)
    assert len(stacked) == 2  # weights and biases


@torch.no_grad()
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_changed_layers_are_seen(layers, tokens, part):
    joint = JointLinear()
    joint(tokens, *layers)
    getattr(layers[1], part).add_(1)
    torch.testing.assert_close(joint(tokens, *layers), apart(layers, tokens))
    layers[0] = nn.Linear(6, 4).double()
    torch.testing.assert_close(joint(tokens, *layers), apart(layers, tokens))


@torch.no_grad()
def test_a_copy_has_weights_of_its_own(layers, tokens):
    joint = JointLinear()
    before = joint(tokens, *layers)
    other, others = copy.deepcopy((joint, layers))
    others[2].weight.zero_()
    torch.testing.assert_close(other(tokens, *others), apart(others, tokens))
    torch.testing.assert_close(joint(tokens, *layers), before)


@torch.no_grad()
def test_of_an_exported_program_nothing_stays_behind(layers, tokens):
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.joint = nn.ModuleList(layers), JointLinear()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.joint(x, *self.layers)

    network = Network()
    program = torch.export.export(network, (tokens,)).module()
    torch.testing.assert_close(program(tokens), apart(layers, tokens))
    torch.testing.assert_close(network(tokens), apart(layers, tokens))
