"""Choice of the cases that a page shows, by rule and not by taste."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

Scores = Mapping[str, float]
"""Mean DSC of each case."""


def mean_dice(rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Return the mean DSC of each case over its classes, from the rows of `metrics_per_case.csv`.

    A class that is in neither reference nor prediction has no DSC and does not count; a case without any is left out.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        value = float(row["dice"])
        if not math.isnan(value):
            found.setdefault(row["case"], []).append(value)
    return {case: statistics.fmean(values) for case, values in found.items()}


def typical_cases(scores: Scores) -> dict[str, str]:
    """Return the best, the median and the worst case with what they are; of equal cases the first by name.

    Of an even number the lower of the two middle ones is the median. A case is shown once.
    """
    ranked = sorted(scores, key=lambda case: (-scores[case], case))
    if not ranked:
        return {}
    if len(ranked) == 1:
        return {ranked[0]: "only case"}
    middle = ranked[len(ranked) // 2]
    chosen = {middle: "median", ranked[0]: "best", ranked[-1]: "worst"}
    return {case: chosen[case] for case in dict.fromkeys([ranked[0], middle, ranked[-1]])}


def most_different(first: Scores, second: Scores, count: int = 1) -> list[str]:
    """Return the cases of both whose mean DSC differs most, in the order of that difference."""
    shared = first.keys() & second.keys()
    return sorted(shared, key=lambda case: (-abs(first[case] - second[case]), case))[:count]
