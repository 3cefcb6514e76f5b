"""Random network outputs for the tests of the losses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from scripts.networks.outputs import BiPVLOutput

OutputMaker = Callable[..., BiPVLOutput]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_output() -> OutputMaker:
    """A function that makes a random BiPVLOutput whose tensors are leaves that want gradients."""

    def make(
        *,
        batch: int = 2,
        classes: int = 5,
        concepts: int = 3,
        width: int = 8,
        softmax: bool = True,
        seed: int = 0,
    ) -> BiPVLOutput:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        channels = classes + int(softmax)
        same = torch.eye(classes, dtype=torch.bool).unsqueeze(-1).repeat(1, 1, concepts)
        return BiPVLOutput(
            logits=random(batch, channels, 4, 4, 4).requires_grad_(),
            class_map=random(batch, channels, 2, 2, 2).requires_grad_(),
            vision_embeddings=F.normalize(random(batch, classes, width), dim=-1).requires_grad_(),
            concept_embeddings=F.normalize(random(batch, classes, concepts, width), dim=-1).requires_grad_(),
            same_sentence=same,
        )

    return make


@pytest.fixture
def make_target() -> Callable[[BiPVLOutput, bool], torch.Tensor]:
    """A function that makes a target fitting an output, with every class somewhere in every sample."""

    def make(output: BiPVLOutput, softmax: bool = True) -> torch.Tensor:
        batch, channels, *spatial = output.logits.shape
        voxels = torch.arange(spatial[0] * spatial[1] * spatial[2]).reshape(1, 1, *spatial)
        if softmax:
            return (voxels % channels).repeat(batch, 1, 1, 1, 1)
        masks = torch.cat([voxels % (c + 2) == 0 for c in range(channels)], dim=1)
        return masks.repeat(batch, 1, 1, 1, 1).float()

    return make
