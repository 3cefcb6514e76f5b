"""The cases that a model has seen, with those of the model that its training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.data.cases import Item
from scripts.data.fingerprints import fingerprints
from scripts.networks.weights import read_checkpoint, record_of


def seen_cases(items: Sequence[Item], start_from: str | Path | None = None) -> list[str]:
    """Return the fingerprints of the training cases and of those that a starting model was trained on.

    Raises:
        FileNotFoundError: an image or the starting model is absent.
    """
    known = record_of(read_checkpoint(start_from, quiet=True)).get("trained_on", ()) if start_from else ()
    return fingerprints(items, known)
