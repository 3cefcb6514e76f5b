"""Record, in the state dict, of the classes and sentences that a network was trained on."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scripts.words.requested import unknown_classes
from scripts.words.table import ConceptTable

logger = logging.getLogger(__name__)


class WordMemory:
    """Record of the classes and sentences that a network was trained on, and of those that BiFusion reads.

    Args:
        table: the words of a new network.
        classes_are_fixed: whether the network has a channel for each class: then a checkpoint of other classes does not
            fit. Where kernels are made of words it does, and the log says which classes are new.

    Attributes:
        learnt: the sentences of each class, by its name.
        context: the sentences that BiFusion reads.
        digest: of the table learnt from last.
    """

    def __init__(self, table: ConceptTable, *, classes_are_fixed: bool) -> None:
        self.classes_are_fixed = classes_are_fixed
        self.context: tuple[str, ...] = table.sentences_flat
        self.learnt: dict[str, list[str]] = {}
        self.learn(table)

    def learn(self, table: ConceptTable) -> None:
        """Add the classes of a table that the network will be trained on."""
        self.learnt |= {name: list(row) for name, row in zip(table.classes, table.sentences, strict=True)}
        self.digest = table.digest

    def unseen(self, table: ConceptTable) -> list[str]:
        """Return the classes of a table that were in no training label, neither by name nor by words."""
        return unknown_classes(table, self.learnt)

    def as_tensor(self) -> Tensor:
        """Return the content as bytes in a tensor, for a state dict."""
        content = {
            "head": _head(self.classes_are_fixed),
            "classes": list(self.learnt),
            "sentences": list(self.learnt.values()),
            "context": list(self.context),
            "digest": self.digest,
        }
        return torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)

    def recall(self, state: Tensor, table: ConceptTable) -> None:
        """Load the record of a checkpoint and compare it with the present table.

        Raises:
            ValueError: the checkpoint has another head; or a channel for each of other classes than the table's; or
                two classes of the table have the same words, where kernels are made of them.
        """
        content = json.loads(bytes(state.tolist()).decode())
        head = content.get("head", "channels")  # which older files do not say
        if head != _head(self.classes_are_fixed):
            raise ValueError(
                f"The checkpoint was trained with the head '{head}'; this network has the head "
                f"'{_head(self.classes_are_fixed)}'. Set `head` to {head}."
            )
        if self.classes_are_fixed:
            _check_classes(content["classes"], table)
            edited = content["digest"] != table.digest
        else:
            table.check_told_apart()
            self._take_over(content, table)
            rows = dict(zip(table.classes, table.sentences, strict=True))
            edited = any(list(row) != self.learnt[name] for name, row in rows.items() if name in self.learnt)
        if edited:
            warnings.warn(
                f"The sentences in {table.source} are not those that the checkpoint was trained "
                "with. The classes are the same, so it is used, with the sentences of the table.",
                stacklevel=4,
            )

    def _take_over(self, content: Mapping[str, Any], table: ConceptTable) -> None:
        self.learnt = dict(zip(content["classes"], content["sentences"], strict=True))
        self.context = tuple(content["context"])
        self.digest = content["digest"]
        new = self.unseen(table)
        if new:
            logger.warning(
                "The model has not learnt to segment %s: none of its training labels showed them. They are "
                "segmented by their words alone. It has learnt %s.",
                _listed(new),
                _listed(list(self.learnt)),
            )


def _head(classes_are_fixed: bool) -> str:
    return "channels" if classes_are_fixed else "words"


def _check_classes(trained: Sequence[str], table: ConceptTable) -> None:
    if list(trained) != list(table.classes):
        raise ValueError(
            f"The checkpoint was trained for {len(trained)} classes, {list(trained)}; the "
            f"concept table {table.source} has {len(table.classes)}, "
            f"{list(table.classes)}. Use the checkpoint and the table of the same data set."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
