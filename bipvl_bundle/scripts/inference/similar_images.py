"""Check of the images to segment against those that the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.data.cases import Item
from scripts.data.image_kind import require_similar_images
from scripts.networks.weights import read_checkpoint, record_of


def check_images(items: Sequence[Item], path: str | Path) -> None:
    """Raise an error before any work if images are far larger or of another kind than the model's training had.

    Args:
        items: the cases to segment.
        path: the model's file; one that does not describe its images is not compared.

    Raises:
        ValueError: they are; see `require_similar_images`.
    """
    require_similar_images(items, record_of(read_checkpoint(path, quiet=True, keep=True)).get("images", {}))
