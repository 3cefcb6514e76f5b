from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from scripts.inference.labels import write_labels
from scripts.words.requested import requested_table
from scripts.words.table import ConceptTable


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_class_of_a_request_is_marked_as_not_learnt(
    make_network: Callable[..., Any], table: ConceptTable, tmp_path: Path
) -> None:
    asked = requested_table(table, {"cyst": "A ball."}, ["cyst", "liver"])
    write_labels(asked, make_network(head="words"), tmp_path / "new")
    assert rows(tmp_path / "new") == [
        {"label": "1", "class": "cyst", "learnt": "no"},
        {"label": "2", "class": "liver", "learnt": "yes"},
    ]


def test_another_name_for_learnt_words_counts_as_learnt(
    make_network: Callable[..., Any], table: ConceptTable, tmp_path: Path
) -> None:
    asked = requested_table(table.only(["left kidney"]), {"x": "shape: A wedge.; location: Top right."})
    write_labels(asked, make_network(head="words"), tmp_path)
    assert [(row["class"], row["learnt"]) for row in rows(tmp_path)] == [("left kidney", "yes"), ("x", "yes")]


@pytest.mark.parametrize(("softmax", "first"), [(True, {"label": "1"}), (False, {"channel": "0"})])
def test_networks_that_do_not_remember(
    table: ConceptTable, tmp_path: Path, softmax: bool, first: dict[str, str]
) -> None:
    write_labels(table, nn.Identity(), tmp_path, softmax=softmax)
    assert rows(tmp_path)[0] == {**first, "class": "right kidney", "learnt": "unknown"}
