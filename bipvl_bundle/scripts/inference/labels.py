"""Table beside the predictions: which number is which class, and whether the model has learnt it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.networks.memory import WordMemory
from scripts.whole_file import write_rows
from scripts.words.table import ConceptTable

FILE = "labels.csv"


def write_labels(concepts: ConceptTable, network: Any, folder: str | Path, *, softmax: bool = True) -> None:
    """Write `labels.csv` with one row a class: its label, or its channel where regions overlap; its name; learnt.

    "learnt" is "no" for a class that was in no training label, so that its mask rests on its words alone, and "unknown"
    for a network that does not remember, such as an exported one.

    Args:
        concepts: the classes in their order.
        network: whose ``memory`` knows what it has learnt from.
        folder: made if it is absent.
        softmax: classes have labels from 1 on; else regions have channels from 0 on.

    Raises:
        OSError: the file cannot be written.
    """
    memory = getattr(network, "memory", None)
    unseen = memory.unseen(concepts) if isinstance(memory, WordMemory) else None
    rows = [
        {
            "label" if softmax else "channel": number,
            "class": name,
            "learnt": "unknown" if unseen is None else "no" if name in unseen else "yes",
        }
        for number, name in enumerate(concepts.classes, start=int(softmax))
    ]
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_rows(Path(folder) / FILE, rows)
