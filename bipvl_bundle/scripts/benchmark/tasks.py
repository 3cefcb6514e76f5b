"""Benchmark tasks of a network: a forward in evaluation and a training step, as in the bundle's configurations."""

from __future__ import annotations

import torch
from torch import nn

from scripts.benchmark.setup import Setup
from scripts.benchmark.timing import Stopwatch, Task


def forward(setup: Setup, network: nn.Module) -> Task:
    """Segment one batch in evaluation, without gradients."""
    image, _ = setup.patch()

    @torch.no_grad()
    def run(watch: Stopwatch) -> None:
        network.eval()
        with setup.autocast():
            network(image)

    return run


def training_step(setup: Setup, network: nn.Module) -> Task:
    """One step with loss and optimiser of train.yaml; parts: forward, loss, backward, optimiser.

    The gradients are gone at the end, so that those of two networks are not there together.
    """
    image, label = setup.patch()
    parser = setup.configuration("train.yaml", network=network)
    loss, optimizer = parser.get_parsed_content("loss"), parser.get_parsed_content("optimizer")

    def run(watch: Stopwatch) -> None:
        network.train()
        with setup.autocast():
            with watch.part("forward"):
                output = network(image)
            with watch.part("loss"):
                value = loss(output, label)
        with watch.part("backward"):
            value.backward()
        with watch.part("optimiser"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run
