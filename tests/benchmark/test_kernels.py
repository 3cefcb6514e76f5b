from __future__ import annotations

import json

import torch
from torch import nn

from scripts.benchmark.command import benchmark
from scripts.benchmark.kernels import Kernels, count_kernels
from scripts.benchmark.setup import GUIDED, PLAIN


def test_products_count_and_views_do_not():
    layer, x = nn.Linear(4, 4), torch.ones(2, 4)
    assert count_kernels(lambda _: layer(x.T.contiguous().T[:, :4].reshape(2, 4))) == Kernels(2, 0)  # a copy, a product


def test_backward_pass_counts():
    """Of a product: the gradients of its weight, of its bias and of its input."""
    layer, x = nn.Linear(4, 4), torch.ones(2, 4, requires_grad=True)
    result, ones = layer(x), torch.ones(2, 4)
    assert count_kernels(lambda _: result.backward(ones)) == Kernels(3, 0)


def test_what_the_host_waits_for_is_told():
    x = torch.ones(3)
    assert count_kernels(lambda _: x.sum().item()) == Kernels(2, 1)
    assert count_kernels(lambda _: x[x > 0]).waited_for == 1


def test_a_forward_waits_for_nothing_and_the_words_cost_at_most_half_as_many_again(small_bert, tmp_path):
    sizes = {"classes": 2, "roi": 64, "feature_size": 12, "window_size": 4, "stage_layers": (1, 1, 1, 1)}
    benchmark(str(tmp_path / "out"), measure="kernels", text_encoder=str(small_bert), **sizes)
    lines = [json.loads(line) for line in (tmp_path / "out/measurements.jsonl").read_text().splitlines()]
    forward, step = (line["values"] for line in lines)
    assert [line["task"] for line in lines] == ["kernels, forward", "kernels, training step"]
    assert forward[PLAIN]["started"] < forward[GUIDED]["started"] < 1.5 * forward[PLAIN]["started"]
    assert forward[PLAIN]["waited_for"] == forward[GUIDED]["waited_for"] == 0
    assert step[GUIDED]["waited_for"] == step[PLAIN]["waited_for"] == 1  # the check of the labels
    assert "| kernels, training step | 64^3" in (tmp_path / "out/benchmark.md").read_text()
