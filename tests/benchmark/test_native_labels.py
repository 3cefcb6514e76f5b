from __future__ import annotations

import sys

import pytest

from scripts.benchmark.native_labels import draw_logits, measure

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_every_class_is_found_and_the_cost_is_told(mode: str) -> None:
    cost = measure(6, (64, 64, 40), mode)
    assert cost.classes == 7
    assert cost.times.cpu > 0
    assert 0 <= cost.peak < 2**30


def test_logits_have_a_place_for_each_class() -> None:
    labels = draw_logits(6, (32, 32, 20)).argmax(0)
    assert (labels == 0).float().mean() > 0.5
    assert len(labels.unique()) == 7
