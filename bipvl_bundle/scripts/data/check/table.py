"""The reports of the cases as a table to read and as a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scripts.data.check.case import CaseReport
from scripts.data.check.verdict import Settings
from scripts.messages.phrases import by
from scripts.messages.tables import aligned

_NONE = "-"


def case_table(reports: Sequence[CaseReport], max_rows: int) -> list[str]:
    """One line a case, aligned; those with problems first where there are more than `max_rows`."""
    shown = list(reports)
    if len(shown) > max_rows:
        shown = sorted(shown, key=lambda report: not report.problems)[:max_rows]
    windowed = any(report.clipped is not None for report in reports)
    share = ["clipped", "labelled"] if windowed else ["nonzero"]
    lines = [["case", "fold", "voxels", "mm", "axes", "resampled", "values", *share, "classes", "usable"]]
    lines += [[*_cells(r), *_shares(r, windowed), _present(r), "NO" if r.problems else "yes"] for r in shown]
    left_out = len(reports) - len(shown)
    return aligned(lines) + ([f"and {left_out} more; --output FILE.csv holds them all"] if left_out else [])


def problem_lines(reports: Sequence[CaseReport], max_rows: int) -> list[str]:
    """Why cases cannot be used, one line a reason."""
    lines = [f"{report.case}: {problem}" for report in reports for problem in report.problems]
    left_out = len(lines) - max_rows
    return lines[:max_rows] + ([f"and {left_out} more; --output FILE.csv holds them all"] if left_out > 0 else [])


def class_table(reports: Sequence[CaseReport], settings: Settings) -> list[str]:
    """One line a class: the cases that hold it, how many of them each fold trains on, and its voxels in a case."""
    counted = [report for report in reports if report.section == "training" and report.counts is not None]
    folds = [f"train {fold}" for fold in range(len(settings.training_parts))]
    lines = [["class", "cases", *folds, "fewest", "median", "most voxels"]]
    for number, name in enumerate(settings.class_names):
        holding = {report.case: report.counts[number] for report in counted if report.counts and report.counts[number]}
        voxels = sorted(holding.values()) or [0]
        parts = [str(len(part & holding.keys())) for part in settings.training_parts]
        extent = [str(voxels[0]), str(voxels[len(voxels) // 2]), str(voxels[-1])]
        lines.append([name, f"{len(holding)}/{len(counted)}", *parts, *extent])
    return aligned(lines)


def csv_rows(reports: Sequence[CaseReport], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """One row a case with every number of its report."""
    return [
        {
            "case": report.case,
            "section": report.section,
            "fold": report.fold,
            "channels": report.channels,
            "voxels": report.grid and by(report.grid.size, "x"),
            "spacing_mm": report.grid and by(report.grid.spacing, "x"),
            "axes": report.grid and report.grid.stored,
            "oriented": report.oriented,
            "resampled": report.resampled and by(report.resampled, "x"),
            "cached_bytes": report.cached,
            "lowest": report.values and report.values[0],
            "highest": report.values and report.values[1],
            "window_filled": report.span,
            "clipped": report.clipped,
            "labelled_clipped": report.labelled_clipped,
            "nonzero": report.nonzero,
            "cut_off_voxels": report.cut_off,
            **{f"voxels of {name}": report.counts and report.counts[i] for i, name in enumerate(class_names)},
            "problems": " | ".join(report.problems),
        }
        for report in reports
    ]


def _cells(report: CaseReport) -> list[str]:
    grid = report.grid
    fold = report.section if report.section != "training" else _NONE if report.fold is None else str(report.fold)
    values = f"{report.values[0]:.4g} to {report.values[1]:.4g}" if report.values else _NONE
    where = [by(grid.size, "x"), by(grid.spacing, "x"), grid.stored] if grid else [_NONE] * 3
    return [report.case, fold, *where, by(report.resampled, "x") if report.resampled else _NONE, values]


def _shares(report: CaseReport, windowed: bool) -> list[str]:
    shares = [report.clipped, report.labelled_clipped] if windowed else [report.nonzero]
    return [_NONE if share is None else f"{share:.0%}" for share in shares]


def _present(report: CaseReport) -> str:
    return f"{sum(map(bool, report.counts))}/{len(report.counts)}" if report.counts else _NONE
