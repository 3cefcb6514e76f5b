"""From the reports of all cases to what speaks against training on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from scripts.data.check.case import CaseReport
from scripts.geometry.grid import AXES
from scripts.messages.phrases import byte_size, some

FILLED = 0.05  # of the window, by the values of a case, at least
CLIPPED_WARNING = 0.1  # of the labelled voxels of a case
CLIPPED_ERROR = 0.9
EMPTY = 0.01  # of the voxels, those that are not zero, at least
PADDED = 2.0  # times the median size
STRETCHED = 3.0  # times the overlay's spacing, or a part of it
MEMORY = 0.7  # of the machine's
_SHOWN = 3


class Finding(NamedTuple):
    """Something that speaks against training (`fatal`), or that a user should look at."""

    fatal: bool
    text: str


@dataclass(frozen=True)
class Settings:
    """What the configuration says.

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


def judge(reports: Sequence[CaseReport], settings: Settings) -> list[Finding]:
    """All findings, the fatal ones first."""
    bad = [report for report in reports if report.problems]
    findings = [Finding(True, f"{_of(bad, reports)} cannot be used, for the reasons above")] if bad else []
    findings += _classes(reports, settings)
    findings += _of_cases(reports, settings.spacing)
    findings += _sizes(reports, settings)
    return sorted(findings, key=lambda finding: not finding.fatal)


def cache_bytes(reports: Sequence[CaseReport], cache_rate: float) -> float:
    """Main memory that the cached share of the training section takes at most, before any crop."""
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
                found = f"class '{name}' is in no case that fold {fold} trains on ({some(sorted(holding), _SHOWN)})"
                text = f"{found}: split the cases anew, by 'fold' keys or another seed"
                findings.append(Finding(fold == settings.fold, text))
    return findings


def _of_cases(reports: Sequence[CaseReport], spacing: Sequence[float]) -> list[Finding]:
    """What is said of the cases that it is true of, and whether it is fatal."""
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
    return f"{len(found)} of {len(reports)} cases ({some((report.case for report in found), _SHOWN)})"
