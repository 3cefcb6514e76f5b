"""Check of the images to segment against those that the model was trained on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from scripts.data.cases import Item, loaded_from
from scripts.data.image_kind import require_similar_images
from scripts.data.intensities import LEVELS, has_window, looks_like
from scripts.inference.requests import RESULT
from scripts.networks.weights import read_checkpoint, record_of

__all__ = ["CompareValuesd", "check_images"]

logger = logging.getLogger(__name__)

EXPORTED = ".onnx"
"""How the names of files end that do not tell what their model was trained on."""


def check_images(
    items: Sequence[Item], path: str | Path, intensity: Sequence[Any] = (), data_set: str | None = None
) -> None:
    """Raise an error before any work if images are far larger or of another kind than the model's training had.

    Args:
        items: the cases to segment.
        path: the model's file; one that does not describe its images is not compared.
        intensity: the transforms that scale the values.
        data_set: `dataset_name` of the run.

    Raises:
        ValueError: they are; see `require_similar_images`.
    """
    known = _known_values(path, data_set)
    require_similar_images(items, _record(path).get("images", {}), known, window=has_window(intensity))


class CompareValuesd(MapTransform):
    """Transform that warns, once a file, of images whose values are unlike those that the model has learnt from.

    The image comes after `CheckCased`, which has left its levels in the metadata. What is said stands in the log, with
    the file, and with the case, for the client of an annotation server. A model's file that does not tell its values
    is not compared with.

    Args:
        keys: images, MetaTensors.
        path: the model's file; None for a network without one.
        intensity: the transforms that scale the values.
        data_set: `dataset_name` of the run, by which a model of several data sets is asked.

    Raises:
        FileNotFoundError: at the first call, there is no such model.
    """

    def __init__(
        self,
        keys: KeysCollection,
        path: str | Path | None,
        intensity: Sequence[Any] = (),
        data_set: str | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.path = path
        self.data_set = data_set
        self.window = has_window(intensity)
        self._told: set[str] = set()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        known = _known_values(self.path, self.data_set) if self.path is not None else []
        for key in self.key_iterator(case) if known else ():
            levels = json.loads(getattr(case[key], "meta", {}).get(LEVELS, "[]"))
            found = [looks_like(*pair, window=self.window) for pair in zip(levels, known, strict=False)]
            said = "; ".join(
                f"channel {n}: {text}" if len(levels) > 1 else text for n, text in enumerate(found) if text
            )
            if said:
                case[RESULT] = {**case.get(RESULT, {}), "warning": f"The image may be unlike the training's: {said}."}
                self._tell(f"{loaded_from(case[key], key)} may be unlike the images of the model's training: {said}.")
        return case

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            logger.warning("%s", text)


def _known_values(path: str | Path, data_set: str | None) -> list[dict[str, Any]]:
    """Return what the model's file knows of the values of each channel; empty if nothing, or of no such data set."""
    record = _record(path)
    values = record.get("images", {}).get("values", {})
    names = [name for name, plan in record.get("data_sets", {}).items() if plan.get("dataset_name") == data_set]
    return values.get(names[0] if names else "", [])


def _record(path: str | Path) -> dict[str, Any]:
    if str(path).endswith(EXPORTED):
        return {}
    try:
        facts = os.stat(path)
    except OSError:
        return record_of(read_checkpoint(path, quiet=True))  # which says that it is absent
    return _record_of_version(str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=8)
def _record_of_version(path: str, *version: int) -> dict[str, Any]:
    return record_of(read_checkpoint(path, quiet=True, keep=True))
