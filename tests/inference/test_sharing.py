from __future__ import annotations

from typing import Any

import pytest
import torch.distributed as dist
from monai.data import DataLoader, Dataset

from scripts.inference import sharing
from scripts.inference.sharing import each_once, same_cases


@pytest.mark.parametrize(("cases", "processes"), [(7, 2), (3, 3), (1, 4), (0, 2)])
def test_each_case_falls_to_one_process(monkeypatch: pytest.MonkeyPatch, cases: int, processes: int) -> None:
    given = []
    monkeypatch.setattr(dist, "get_world_size", lambda *_: processes)
    for rank in range(processes):
        monkeypatch.setattr(dist, "get_rank", lambda *_, rank=rank: rank)
        loader = DataLoader(Dataset([{"image": n} for n in range(cases)]), sampler=each_once([{}] * cases))
        given += [int(batch["image"]) for batch in loader]
    assert sorted(given) == list(range(cases))


def test_the_first_process_says_which_cases_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second of two, whose list lacks the mask that the first has made in the meantime."""
    theirs = [{"image": "a"}, {"image": "b"}]

    def broadcast(objects: list[Any], src: int) -> None:
        assert src == 0
        objects[0] = theirs

    monkeypatch.setattr(sharing.dist, "broadcast_object_list", broadcast)
    assert same_cases([{"image": "b"}]) == theirs
