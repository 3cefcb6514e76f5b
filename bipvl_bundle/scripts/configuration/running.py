"""Access to the monai.bundle workflow that is evaluating its ``initialize``.

monai.bundle hands its workflow to no expression and no component, and a macro of the whole configuration ("%") would
be instantiated with all that it holds; so the run is found where Python keeps it, among the calling frames.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.bundle.scripts import create_workflow
from monai.utils import ensure_tuple

__all__ = ["running_files", "running_options", "running_workflow"]


def running_workflow() -> ConfigWorkflow | None:
    """Return the workflow that is being initialised, with its merged configuration, or None."""
    owners = (variables.get("self") for _, variables in _calling_frames())
    return next((owner for owner in owners if isinstance(owner, ConfigWorkflow)), None)


def running_files() -> tuple[str, ...]:
    """Return the config files given to `monai.bundle.run`; empty if the caller made the workflow itself."""
    calls = (variables for code, variables in _calling_frames() if code is create_workflow.__code__)
    files = next((variables["config_file"] for variables in calls), None)
    return ensure_tuple(files) if files else ()


def running_options() -> frozenset[str]:
    """Return the keys of the configuration that options of `monai.bundle.run` set, of nested ones the outermost."""
    calls = (variables for code, variables in _calling_frames() if code is create_workflow.__code__)
    options: dict[str, Any] = next((variables["kwargs"] for variables in calls), {})
    return frozenset(str(key).replace("::", "#").split("#")[0] for key in options)


def _calling_frames() -> Iterator[tuple[Any, dict[str, Any]]]:
    yield from ((frame.f_code, frame.f_locals) for frame, _ in traceback.walk_stack(None))
