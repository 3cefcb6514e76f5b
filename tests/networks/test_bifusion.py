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


def plain_bifusion(block, text, vision):
    """Eq. 2 for one sample, as the docstring of BiFusion states it."""
    t = plain_linear(block.text_in, text)
    t = t + plain_attention(block.text_self_attention, *[plain_norm(block.text_norm, t)] * 2)
    v = vision
    if block.vision_self_attention is not None:
        v = v + plain_attention(block.vision_self_attention, *[plain_norm(block.vision_norm, v)] * 2)
    v_normed = plain_norm(block.vision_cross_norm, v)
    t_normed = plain_norm(block.text_cross_norm, t)
    t = t + plain_mlp(block.text_mlp, plain_attention(block.text_cross_attention, t_normed, v_normed))
    t = plain_norm(block.text_fused_norm, t)
    v = v + plain_mlp(block.vision_mlp, plain_attention(block.vision_cross_attention, v_normed, t))
    return text + plain_linear(block.text_out, t), v


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 6, 16, generator=generator), torch.randn(2, 10, 12, generator=generator)


def make_block(**arguments):
    torch.manual_seed(0)
    return BiFusion(12, 16, num_heads=3, **arguments).double()


@pytest.mark.parametrize("vision_self_attention", [True, False])
def test_equals_the_plain_equation_forward_and_backward(tokens, awaken, vision_self_attention):
    block = awaken(make_block(vision_self_attention=vision_self_attention))
    text, vision = (x.double().requires_grad_() for x in tokens)
    results, gradients = [], []
    for run in (
        lambda: block(text, vision),
        lambda: [
            torch.stack(x)
            for x in zip(*(plain_bifusion(block, t, v) for t, v in zip(text, vision, strict=True)), strict=True)
        ],
    ):
        fused = run()
        gradients.append(torch.autograd.grad(sum(x.square().sum() for x in fused), [text, vision]))
        results.append(fused)
    for ours, plain in zip(results[0] + gradients[0], [*results[1], *gradients[1]], strict=True):
        torch.testing.assert_close(ours, plain)


def test_hands_both_inputs_on_unchanged_at_initialisation(tokens):
    text, vision = tokens
    fused_text, fused_vision = make_block().float()(text, vision)
    assert torch.equal(fused_text, text)
    assert torch.equal(fused_vision, vision)


def test_each_modality_changes_the_other(tokens, awaken):
    block = awaken(make_block())
    text, vision = (x.double() for x in tokens)
    fused_text, fused_vision = block(text, vision)
    assert not torch.allclose(block(text + 1 * text.flip(1), vision)[1], fused_vision)
    assert not torch.allclose(block(text, vision.flip(1) * 2)[0], fused_text)


def test_order_of_vision_tokens_is_kept(tokens, awaken):
    block = awaken(make_block())
    text, vision = (x.double() for x in tokens)
    order = torch.randperm(vision.shape[1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(text, vision[:, order])[1], block(text, vision)[1][:, order])


def test_heads_that_do_not_divide_the_channels_raise():
    with pytest.raises(ValueError, match="5 attention heads cannot share 12 channels"):
        Attention(12, 5)
