"""Report of a reading test: table, verdict, files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.messages.tables import aligned, markdown
from scripts.whole_file import write_rows, write_text
from scripts.words.wordings import Wording

HEAD = ("wording", "DSC, own label", "DSC, label of the words", "classes missed")
UNCHANGED = 0.02  # DSC: less than another seed changes
FOLLOWS = 0.05  # DSC that a mask in exchanged words may be worse by
LOST = 0.5  # share of the DSC that is left in words without a meaning


class ReadingReport:
    """Scores of a model in W wordings of its classes, as a table, a verdict and files.

    Args:
        asked: the wordings, the right words first.
        overlaps: DSC of each of N channels with each of N labels, for each wording and case; NaN where a case has not
            the label.  # W x cases x N x N
    """

    def __init__(self, asked: Sequence[Wording], overlaps: NDArray[np.float64]) -> None:
        self.asked = list(asked)
        count = (~np.isnan(overlaps)).sum(axis=1)
        sums = np.nansum(overlaps, axis=1)
        self.means = np.divide(sums, count, out=np.full_like(sums, np.nan), where=count > 0)  # W x N x N
        rows = np.arange(self.means.shape[1])
        self.own = [float(np.nanmean(mean[rows, rows])) for mean in self.means]
        meant = [float(np.nanmean(mean[rows, list(w.meant)])) for w, mean in zip(self.asked, self.means, strict=True)]
        self.meant = meant
        self.missed = [int((mean[rows, list(w.meant)] == 0).sum()) for w, mean in zip(asked, self.means, strict=True)]

    @property
    def reads(self) -> bool | None:
        """Whether the words decide: True, False, or None if they change scores without deciding."""
        right = self.own[0]
        exchanged = self._of("exchanged", "others")
        meaningless = self.own[self._of("meaningless")[0]]
        follows = all(self.meant[row] > right - FOLLOWS and self.meant[row] > self.own[row] for row in exchanged)
        if follows and meaningless < LOST * right:
            return True
        stays = all(abs(self.own[row] - right) < UNCHANGED for row in [*exchanged, self._of("meaningless")[0]])
        return False if stays else None

    def verdict(self) -> str:
        """Return one sentence that says whether the words decide the masks."""
        right, meaningless = self.own[0], self.own[self._of("meaningless")[0]]
        if self.reads:
            text = "The words decide what is segmented: a class given another one's words is found in its place"
        elif self.reads is False:
            text = "The words are not read: other words, and words without a meaning, leave the masks as they were"
        else:
            text = "The words take part without deciding: other words change the masks, but not to what they describe"
        return f"{text} (right words {right:.3f}, words without a meaning {meaningless:.3f} DSC)."

    def rows(self) -> list[dict[str, str | int]]:
        """Return one row per wording: the content of `reading.csv`."""
        columns = zip(self.asked, self.own, self.meant, self.missed, strict=True)
        return [
            {
                "wording": w.name,
                "kind": w.kind,
                "dice_own": f"{own:.4f}",
                "dice_words": f"{meant:.4f}",
                "missed": missed,
            }
            for w, own, meant, missed in columns
        ]

    def _cells(self) -> list[list[str]]:
        columns = zip(self.asked, self.own, self.meant, self.missed, strict=True)
        moved = {"exchanged", "others"}
        return [
            [w.name, f"{own:.3f}", f"{meant:.3f}" if w.kind in moved else "", str(missed)]
            for w, own, meant, missed in columns
        ]

    def text(self) -> str:
        """Return the table and the verdict for a terminal."""
        return "\n".join([*aligned([list(HEAD), *self._cells()]), "", self.verdict()])

    def write(self, folder: Path) -> None:
        """Write `reading.csv` and `reading.md`, each whole or not at all."""
        write_rows(folder / "reading.csv", self.rows())
        lines = [self.verdict(), "", *markdown(HEAD, self._cells(), numbers=True), ""]
        write_text(folder / "reading.md", "\n".join(lines))

    def _of(self, *kinds: str) -> list[int]:
        return [row for row, wording in enumerate(self.asked) if wording.kind in kinds]
