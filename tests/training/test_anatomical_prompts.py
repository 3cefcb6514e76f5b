from __future__ import annotations

import pytest
import torch
from monai.networks.nets import SwinUNETR
from torch import nn

from scripts.networks.baselines.cat import CAT
from scripts.networks.baselines.swin_features import SwinFeatures
from scripts.training.anatomical_prompts import AnatomicalPrompts


@pytest.fixture
def network(table):
    torch.manual_seed(0)
    swin = SwinUNETR(1, 1, feature_size=12, window_size=4, depths=(1, 1, 1, 1))
    return CAT(SwinFeatures(swin), table, None, anatomical=True, text_width=8)


def case(seed: int, classes=(1, 2, 3)) -> dict[str, torch.Tensor]:
    image = torch.randn(1, 40, 20, 20, generator=torch.Generator().manual_seed(seed))
    label = torch.zeros_like(image)
    for n in classes:
        label[:, 10 * n : 10 * n + 6, 4:12, 4:12] = n
    return {"image": image, "label": label}


def prompts(network, items, **arguments) -> AnatomicalPrompts:
    return AnatomicalPrompts(network, items, lambda item: item, roi_size=(64, 32, 32), **arguments)


def test_is_the_mean_over_cases(network):
    items = [case(0), case(1)]
    found = []
    for part in ([items[0]], [items[1]], items):
        prompts(network, part).make()
        found.append(network.anatomy.clone())
    torch.testing.assert_close(found[2], (found[0] + found[1]) / 2)
    assert all(not torch.allclose(found[0][i], found[0][j]) for i in range(4) for j in range(i))
    assert network.training


def test_follows_the_structure_and_not_what_is_far_from_it(network):
    one, two = case(0, (1,)), case(0, (1,))
    two["image"][:, 30:] = 5.0
    maker = prompts(network, [])
    network.eval()
    with torch.no_grad():
        near, same = (maker._describe(item["image"], item["label"][0] == 1) for item in (one, two))
    torch.testing.assert_close(near, same)


def test_is_made_in_the_first_epoch_and_in_those_named(network):
    made = []
    handler = prompts(network, [case(0)], epochs=(3,))
    handler.make = lambda: made.append(True)

    class Engine:
        class state:
            epoch = 0

    for epoch in range(1, 5):
        Engine.state.epoch = epoch
        handler(Engine)
        assert len(made) == (2 if epoch >= 3 else 1)


def test_class_that_no_case_shows_raises(network):
    with pytest.raises(ValueError, match="None of 1 training cases shows left kidney, liver"):
        prompts(network, [case(0, (1,))]).make()


def test_other_network_raises():
    with pytest.raises(TypeError, match=r"CAT's; found a Linear.*baseline_cat\.yaml"):
        prompts(nn.Linear(1, 1), [])
