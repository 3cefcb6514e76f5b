"""Tables and findings from the reports of all cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from scripts.data.check.case import CaseReport
from scripts.geometry.grid import AXES
from scripts.messages.phrases import by, byte_size, some
from scripts.messages.tables import aligned

FILLED = 0.05  # least share of the intensity window that a case's values must fill
CLIPPED_WARNING = 0.1  # share of the labelled voxels of a case
CLIPPED_ERROR = 0.9
EMPTY = 0.01  # least share of voxels that are not zero
PADDED = 2.0  # ROI edge as a multiple of the median size
STRETCHED = 3.0  # ratio of a case's spacing to the overlay's, either way
MEMORY = 0.7  # largest share of the machine's memory for the cache
_NAMED = 3
_NONE = "-"


class Finding(NamedTuple):
    """A finding about a data set: an error (`fatal`) or a warning."""

    fatal: bool
    text: str


@dataclass(frozen=True)
class Settings:
    """Settings of a configuration that the findings depend on.

    Attributes:
        class_names: foreground classes, or regions.
        spacing: mm.
        roi_size: voxels.
        cache_rate: share of the cases kept in memory.
        training_parts: names of the cases that each fold trains on.
        fold: the one that is to be trained.
        memory: of the machine, bytes; None if unknown.
    """

    class_names: Sequence[str]
    spacing: Sequence[float]
    roi_size: Sequence[int]
    cache_rate: float
    training_parts: Sequence[frozenset[str]]
    fold: int
    memory: int | None = None


def find_faults(reports: Sequence[CaseReport], settings: Settings) -> list[Finding]:
    """Return all findings, errors first."""
    bad = [report for report in reports if report.problems]
    findings = [Finding(True, f"{_of(bad, reports)} cannot be used, for the reasons above")] if bad else []
    findings += _classes(reports, settings)
    findings += _of_cases(reports, settings.spacing)
    findings += _sizes(reports, settings)
    return sorted(findings, key=lambda finding: not finding.fatal)


def cache_bytes(reports: Sequence[CaseReport], cache_rate: float) -> float:
    """Return the main memory in bytes that the cached training cases take at most, before any crop."""
    return cache_rate * sum(report.cached for report in reports if report.section == "training")


def _classes(reports: Sequence[CaseReport], settings: Settings) -> list[Finding]:
    labelled = [report for report in reports if report.section == "training" and report.counts is not None]
    if not labelled:
        return [Finding(False, "the classes of no case could be counted")]
    empty = [report for report in labelled if not any(report.counts or ())]
    findings = [Finding(False, f"{_of(empty, labelled)} without a labelled voxel")] if empty else []
    for number, name in enumerate(settings.class_names):
        holding = {report.case for report in labelled if report.counts and report.counts[number]}
        if not holding:
            findings.append(Finding(True, f"class '{name}' is in no case: check the order of the classes"))
            continue
        for fold, part in enumerate(settings.training_parts):
            if not holding & part:
                found = f"class '{name}' is in no case that fold {fold} trains on ({some(sorted(holding), _NAMED)})"
                text = f"{found}: split the cases anew, by 'fold' keys or another seed"
                findings.append(Finding(fold == settings.fold, text))
    return findings


def _of_cases(reports: Sequence[CaseReport], spacing: Sequence[float]) -> list[Finding]:
    """Return findings that hold for some cases, with these cases."""
    rules: list[tuple[bool, str, Callable[[CaseReport], bool]]] = [
        (
            True,
            f"values that fill less than {FILLED:.0%} of the intensity window: another unit, or another window",
            lambda report: report.span is not None and report.span < FILLED,
        ),
        (
            True,
            f"over {CLIPPED_ERROR:.0%} of the labelled voxels clipped",
            lambda report: (report.labelled_clipped or 0) > CLIPPED_ERROR,
        ),
        (
            False,
            f"over {CLIPPED_WARNING:.0%} of the labelled voxels clipped",
            lambda report: CLIPPED_WARNING < (report.labelled_clipped or 0) <= CLIPPED_ERROR,
        ),
        (
            False,
            f"under {EMPTY:.0%} of the voxels other than zero",
            lambda report: report.nonzero is not None and report.nonzero < EMPTY,
        ),
        (
            False,
            "labelled voxels outside the foreground, which CropForegroundd would cut off",
            lambda report: report.cut_off > 0,
        ),
        (
            False,
            "a header that does not say how the axes lie (sform and qform code 0): left and right are a guess",
            lambda report: not report.oriented,
        ),
        (
            False,
            f"a spacing that resampling changes by more than {STRETCHED:g} along some axis",
            lambda report: _is_stretched(report, spacing),
        ),
    ]
    found = [(fatal, what, [report for report in reports if concerns(report)]) for fatal, what, concerns in rules]
    return [Finding(fatal, f"{_of(cases, reports)} with {what}") for fatal, what, cases in found if cases]


def _is_stretched(report: CaseReport, spacing: Sequence[float]) -> bool:
    pairs = zip(report.grid.spacing, spacing, strict=True) if report.grid else ()
    return any(not 1 / STRETCHED <= old / new <= STRETCHED for old, new in pairs)


def _sizes(reports: Sequence[CaseReport], settings: Settings) -> list[Finding]:
    findings = []
    sizes = [report.resampled for report in reports if report.resampled]
    for axis, name in enumerate(AXES if sizes else ()):
        edge, middle = settings.roi_size[axis], median(size[axis] for size in sizes)
        if edge > PADDED * middle:
            found = f"roi_size has {edge} voxels along {name}, the median volume {middle:g} at this spacing"
            findings.append(Finding(False, f"{found}: much of a patch would be padding"))
    need = cache_bytes(reports, settings.cache_rate)
    if settings.memory and need > MEMORY * settings.memory:
        text = f"caching takes up to {byte_size(need)} of this machine's {byte_size(settings.memory)}"
        findings.append(Finding(False, f"{text}: lower cache_rate"))
    return findings


def _of(found: Sequence[CaseReport], reports: Sequence[CaseReport]) -> str:
    return f"{len(found)} of {len(reports)} cases ({some((report.case for report in found), _NAMED)})"


def case_table(reports: Sequence[CaseReport], max_rows: int) -> list[str]:
    """Return one aligned line per case; cases with problems first if there are more than `max_rows`."""
    printed = list(reports)
    if len(printed) > max_rows:
        printed = sorted(printed, key=lambda report: not report.problems)[:max_rows]
    windowed = any(report.clipped is not None for report in reports)
    share = ["clipped", "labelled"] if windowed else ["nonzero"]
    lines = [["case", "fold", "voxels", "mm", "axes", "resampled", "values", *share, "classes", "usable"]]
    lines += [[*_cells(r), *_shares(r, windowed), _present(r), "NO" if r.problems else "yes"] for r in printed]
    left_out = len(reports) - len(printed)
    return aligned(lines) + ([f"and {left_out} more; --output FILE.csv holds them all"] if left_out else [])


def problem_lines(reports: Sequence[CaseReport], max_rows: int) -> list[str]:
    """Return one line for each reason why a case cannot be used."""
    lines = [f"{report.case}: {problem}" for report in reports for problem in report.problems]
    left_out = len(lines) - max_rows
    return lines[:max_rows] + ([f"and {left_out} more; --output FILE.csv holds them all"] if left_out > 0 else [])


def class_table(reports: Sequence[CaseReport], settings: Settings) -> list[str]:
    """Return one line per class: its cases, how many each fold trains on, and its voxels per case."""
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
    """Return one row per case with every number of its report."""
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
