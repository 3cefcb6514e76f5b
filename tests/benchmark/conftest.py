from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from scripts.benchmark.inputs import write_text_encoder
from scripts.benchmark.setup import Setup

SIZES = {"classes": 2, "roi": 64, "feature_size": 12, "window_size": 4, "depth": 1, "stage_layers": (1, 1, 1, 1)}


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    return write_text_encoder(tmp_path_factory.mktemp("benchmark") / "text_encoder", **sizes)


@pytest.fixture
def make_setup(small_bert: Path) -> Callable[..., Setup]:
    def make(**changes: object) -> Setup:
        return Setup(str(small_bert), **{**SIZES, **changes})

    return make


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """A setup changes the threads and the seed of its process."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
