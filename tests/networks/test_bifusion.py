from __future__ import annotations

import math

import pytest
import torch

from scripts.networks.attention import Attention
from scripts.networks.bifusion import BiFusion


def plain_linear(layer, x):
    return x @ layer.weight.T + layer.bias


def plain_norm(layer, x):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + layer.eps).sqrt() * layer.weight + layer.bias


def plain_attention(layer, queries, context):
    """One sample, one head at a time, with the full matrix."""
    q, k, v = (
        plain_linear(layer.query, queries),
        plain_linear(layer.key, context),
        plain_linear(layer.value, context),
    )
    width = q.shape[-1] // layer.num_heads
    heads = []
    for h in range(layer.num_heads):
        part = slice(h * width, (h + 1) * width)
        weights = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(width), dim=-1)
        heads.append(weights @ v[:, part])
    return plain_linear(layer.output, torch.cat(heads, dim=-1))


def plain_mlp(layer, x):
    hidden = plain_linear(layer.linear1, x)
    return plain_linear(layer.linear2, hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))


def plain_pooling(tokens, grid, smaller):
    """Averages over blocks of cells, one at a time: the bounds are those in the docstring of `pool_tokens`."""
    cells = tokens.reshape(*grid, -1)

    def bounds(axis):
        n, m = grid[axis], smaller[axis]
        return [slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]

    blocks = [cells[h, w, d] for h in bounds(0) for w in bounds(1) for d in bounds(2)]
    return torch.stack([block.flatten(0, 2).mean(dim=0) for block in blocks])


def plain_bifusion(block, text, features, smaller=None):
    """Eq. 2 for one sample, as the docstring of BiFusion states it; `smaller` is the grid of keys and values."""
    vision = features.flatten(1).T
    t = plain_linear(block.text_in, text)
    kept = int(block.self_attention_residual)
    t = kept * t + plain_attention(block.text_self_attention, *[plain_norm(block.text_norm, t)] * 2)
    v = vision
    if block.vision_self_attention is not None:
        normed = plain_norm(block.vision_norm, v)
        context = plain_pooling(normed, features.shape[1:], smaller) if smaller else normed
        v = kept * v + plain_attention(block.vision_self_attention, normed, context)
    v_normed = plain_norm(block.vision_cross_norm, v)
    t_normed = plain_norm(block.text_cross_norm, t)
    t = t + plain_mlp(block.text_mlp, plain_attention(block.text_cross_attention, t_normed, v_normed))
    t = plain_norm(block.text_fused_norm, t)
    v = v + plain_mlp(block.vision_mlp, plain_attention(block.vision_cross_attention, v_normed, t))
    return text + plain_linear(block.text_out, t), v.T.reshape(features.shape)


@pytest.fixture
def inputs():
    """Six text tokens, and features on a grid of 5 x 2 x 3 cells, for a batch of two."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 6, 16, generator=generator), torch.randn(2, 12, 5, 2, 3, generator=generator)


def make_block(**arguments):
    torch.manual_seed(0)
    return BiFusion(12, 16, num_heads=3, **arguments).double()


@pytest.mark.parametrize(
    ("arguments", "smaller"),
    [
        ({}, None),
        ({"vision_self_attention": False}, None),
        ({"self_attention_residual": False}, None),
        ({"token_budget": 30}, None),
        ({"token_budget": 29}, (3, 2, 3)),
        ({"token_budget": 10}, (2, 2, 2)),
        ({"token_budget": 1}, (1, 1, 1)),
        ({"token_budget": None}, None),
    ],
)
def test_equals_the_plain_equation_forward_and_backward(inputs, awaken, arguments, smaller):
    block = awaken(make_block(**arguments))
    text, vision = (x.double().requires_grad_() for x in inputs)
    results, gradients = [], []

    def plain():
        samples = [plain_bifusion(block, t, v, smaller) for t, v in zip(text, vision, strict=True)]
        return [torch.stack(x) for x in zip(*samples, strict=True)]

    for run in (lambda: block(text, vision), plain):
        fused = run()
        gradients.append(torch.autograd.grad(sum(x.square().sum() for x in fused), [text, vision]))
        results.append(fused)
    for ours, plain in zip(results[0] + gradients[0], [*results[1], *gradients[1]], strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("token_budget", [None, 10])
def test_hands_both_inputs_on_unchanged_at_initialisation(inputs, token_budget):
    text, vision = inputs
    fused_text, fused_vision = make_block(token_budget=token_budget).float()(text, vision)
    assert torch.equal(fused_text, text)
    assert torch.equal(fused_vision, vision)


def test_each_modality_changes_the_other(inputs, awaken):
    block = awaken(make_block())
    text, vision = (x.double() for x in inputs)
    fused_text, fused_vision = block(text, vision)
    assert not torch.allclose(block(text + 1 * text.flip(1), vision)[1], fused_vision)
    assert not torch.allclose(block(text, vision.flip(1) * 2)[0], fused_text)


def test_order_of_vision_tokens_is_kept(inputs, awaken):
    block = awaken(make_block())
    text, vision = (x.double() for x in inputs)
    for axis in (2, 3, 4):
        torch.testing.assert_close(block(text, vision.flip(axis))[1], block(text, vision)[1].flip(axis))


class TestTokenBudget:
    def test_within_it_nothing_changes_to_the_bit(self, inputs, awaken):
        text, vision = (x.double() for x in inputs)
        unlimited, limited = (awaken(make_block(token_budget=budget)) for budget in (None, 5 * 2 * 3))
        for ours, exact in zip(limited(text, vision), unlimited(text, vision), strict=True):
            assert torch.equal(ours, exact)

    def test_is_exact_for_tokens_that_are_alike_within_a_block(self, awaken):
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randn(1, 12, 2, 2, 2, generator=generator).double()
        text, vision = torch.randn(1, 6, 16, generator=generator).double(), coarse.repeat_interleave(2, dim=2)
        exact, pooled = (awaken(make_block(token_budget=budget)) for budget in (None, 8))
        for ours, expected in zip(pooled(text, vision), exact(text, vision), strict=True):
            torch.testing.assert_close(ours, expected)

    def test_every_token_keeps_an_answer_of_its_own(self, inputs, awaken):
        """Features of one grid cell change the output there more than in its neighbour of the same block."""
        block = awaken(make_block(token_budget=1))
        text, vision = (x.double() for x in inputs)
        changed = vision.clone()
        changed[:, :, 0, 0, 0] *= 3
        moved = (block(text, changed)[1] - block(text, vision)[1]).norm(dim=1)
        assert (moved[:, 0, 0, 0] > 10 * moved[:, 0, 0, 1]).all()
        assert (moved[:, 0, 0, 1] > 0).all()

    def test_state_dict_does_not_depend_on_it(self):
        make_block(token_budget=4).load_state_dict(make_block(token_budget=None).state_dict())

    @pytest.mark.parametrize("token_budget", [0, -1])
    def test_no_tokens_at_all_raise(self, token_budget):
        with pytest.raises(ValueError, match=rf"`token_budget` .* or null for no limit; found {token_budget}"):
            make_block(token_budget=token_budget)


def test_heads_that_do_not_divide_the_channels_raise():
    with pytest.raises(ValueError, match="5 attention heads cannot share 12 channels"):
        Attention(12, 5)
