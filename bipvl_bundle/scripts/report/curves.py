"""Training curves, read from TensorBoard's event files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, ScalarEvent

from scripts.report.colours import class_colours

Curve = tuple[list[int], list[float]]
"""Steps and values."""
PANELS = {
    "losses": ("train_loss", "train_segmentation", "train_class_embedding", "train_alignment"),
    "weights of the losses, log sigma²": ("train_log_",),
    "collapse: accuracy of the alignment": ("train_top1_",),
    "collapse: cosine of different classes": ("train_cosine_",),
    "validation: DSC": ("val_mean_dice", "dice_"),
    "learning rate": ("learning_rate",),
}
"""Panels by title, with how the names of their curves begin."""


def read_curves(folder: Path) -> dict[str, Curve]:
    """Return the scalars of a folder of event files by name; none where there is no such file.

    Of several runs into one folder, as of a resumed one, a step's last value counts.
    """
    curves = {}
    for name, events in read_events(folder).items():
        points = {event.step: event.value for event in sorted(events, key=lambda event: event.wall_time)}
        curves[name] = (sorted(points), [points[step] for step in sorted(points)])
    return curves


def read_events(folder: Path) -> dict[str, list[ScalarEvent]]:
    """Return the scalars of a folder of event files by name, each with its step and its time; none without a file."""
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    library = logging.getLogger("tensorboard")
    level = library.level
    library.setLevel(logging.WARNING)  # it tells of each file
    try:
        events.Reload()
    finally:
        library.setLevel(level)
    return {name: events.Scalars(name) for name in events.Tags()["scalars"]}


def curve_panels(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    """Return the curves of each panel, by title; a panel without curves is left out."""
    panels = {}
    for title, beginnings in PANELS.items():
        found = {name: curve for name, curve in curves.items() if name.startswith(beginnings)}
        found.pop("train_loss_iteration", None)  # over iterations and not epochs
        panels[title] = found
    return {title: found for title, found in panels.items() if found}


def curves_figure(curves: Mapping[str, Curve]) -> Figure:
    """Draw a panel each of losses, weights, collapse indicators, validation and learning rate, over the epochs."""
    panels = curve_panels(curves)
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(10, 2.9 * max(rows, 1)), layout="constrained", facecolor="white")
    for place, (title, found) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, 2, place)
        for number, (colour, (name, (steps, values))) in enumerate(
            zip(class_colours(len(found)), found.items(), strict=True)
        ):
            dashes = ("-", "--", "-.", ":")[number % 4]  # told apart without colours too
            axes.plot(
                steps, values, label=_short(name), color=colour, linestyle=dashes, marker="." if len(steps) < 9 else ""
            )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch", fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, ncols=1 + len(found) // 6)
    return figure


def _short(name: str) -> str:
    for beginning in ("train_log_variance_", "train_", "val_mean_", "dice_"):
        if name.startswith(beginning):
            return name.removeprefix(beginning).replace("_", " ").replace("dice", "mean")
    return name.replace("_", " ")
