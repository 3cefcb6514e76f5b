"""Box plots of the scores of all cases, by class and by model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from scripts.report.colours import class_colours

Rows = Sequence[Mapping[str, str]]
METRICS = {"dice": "DSC", "hd95_mm": "HD95 (mm)", "nsd": "NSD"}


def score_values(rows: Rows, metric: str) -> dict[str, list[float]]:
    """Return the values of a metric by class, from the rows of `metrics_per_case.csv`, without undefined ones."""
    found: dict[str, list[float]] = {}
    for row in rows:
        values = found.setdefault(row["class"], [])
        if not math.isnan(float(row[metric])):
            values.append(float(row[metric]))
    return found


def score_figure(models: Mapping[str, Rows]) -> Figure:
    """Draw a panel per metric and a box per class and model: median, quartiles, whiskers to 1.5 times their distance.

    Args:
        models: the rows of `metrics_per_case.csv` by the names of the models
    """
    names = list(dict.fromkeys(row["class"] for rows in models.values() for row in rows))
    height = 1.2 + 0.28 * len(names) * max(1, len(models))
    figure = Figure(figsize=(10, height), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(METRICS), sharey=True)
    colours = class_colours(len(models))
    width = 0.8 / len(models)
    for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
        for number, rows in enumerate(models.values()):
            values = score_values(rows, metric)
            places = [i + (number - (len(models) - 1) / 2) * width for i in range(len(names))]
            drawn = axes.boxplot(
                [values.get(name, []) for name in names],
                positions=places,
                orientation="horizontal",
                widths=0.8 * width,
                patch_artist=True,
                medianprops={"color": "black"},
                flierprops={"markersize": 3},
            )
            for box in drawn["boxes"]:
                box.set_facecolor(colours[number])
        axes.set_title(title)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    if len(models) > 1:
        handles = [panels[0].fill([], [], color=colour)[0] for colour in colours]
        figure.legend(handles, list(models), loc="outside lower center", ncols=3, frameon=False)
    return figure
