"""What a model's file says of its training, heeded by requests: the settings, and the images that it was made for.

The bundle's own code reads it. MONAI Label imports that code anew for each image, and so does this.
"""

from __future__ import annotations

import copy
import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

logger = logging.getLogger(__name__)

SERVERS_OWN = ("dataset_name", "concepts_file")
"""Settings that the bundle decides: the server lists its classes and words."""
NETWORK = ("network_def",)


def trained_with(bundle: str | Path, config: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """The settings that the model was trained with, where the configuration has other ones.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the file is damaged, or no model's.
    """
    with _code_of(bundle):
        follow_model = _of_bundle("scripts.training.plan", "follow_model")
        if follow_model is None:
            return {}
        parser = ConfigParser(copy.deepcopy(dict(config)))
        changed = follow_model(parser, model, defaults=config, free=SERVERS_OWN)
        return {key: parser.get(key) for key in changed}


def require_same_network(bundle: str | Path, built: Mapping[str, Any], wanted: Mapping[str, Any], model: str) -> None:
    """Refuse a model of another network than the one that the server has built.

    Args:
        bundle: its folder.
        built: the configuration of the server's network.
        wanted: that of the model.
        model: its name.

    Raises:
        ValueError: they differ; the message has the first setting that does.
    """
    with _code_of(bundle):
        plan_of = _of_bundle("scripts.configuration.plan", "plan_of")
        same = _of_bundle("scripts.configuration.plan", "require_same_plan")
        if plan_of is None or same is None:
            return
        try:
            same(plan_of(built, NETWORK), plan_of(wanted, NETWORK), f"'{model}'")
        except ValueError as error:
            raise ValueError(f"{error} Serve it from a bundle of its own, as its models/model.pt.") from error


def require_similar_image(image: str, model: Path) -> None:
    """Refuse an image far larger, or of another kind, than the model's training had; within a request.

    Raises:
        ValueError: it is; the message names the option to segment it all the same.
    """
    check_images = _of_bundle("scripts.inference.similar_images", "check_images")
    if check_images is None or not Path(image).is_file():
        return
    name = Path(image).name
    try:
        check_images([{"image": image, "case": name.split(".nii")[0]}], model)
    except ValueError as error:  # a client is told of no folder
        raise ValueError(str(error).replace(image, name)) from error


@contextmanager
def _code_of(bundle: str | Path) -> Iterator[None]:
    for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
        del sys.modules[name]
    sys.path.insert(0, str(bundle))
    try:
        yield
    finally:
        sys.path.remove(str(bundle))


def _of_bundle(module: str, name: str) -> Callable[..., Any] | None:
    """A function of the bundle; None, and a line in the log, in one that is older than it or of another kind."""
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        logger.warning("What the model's file says of its training is not heeded: the bundle has no %s.", error.name)
        return None
    return found
