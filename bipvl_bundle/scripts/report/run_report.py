"""The command `report`: writes the page of an evaluation, or of a training, anew from its files."""

from __future__ import annotations

from pathlib import Path

from scripts.report.run_page import PER_CASE, write_run_page
from scripts.report.training import FACTS, write_training_page


def report(folder: str, reading: str | None = None) -> None:
    """Write the page of an evaluation anew from the files in its folder, as after a reading test or more training.

    An evaluation leaves the page itself, `report.html` beside its scores, and a training one in its folder. What the
    model makes of its words is measured there and not again.

    Args:
        folder: of a run, such as runs/phantom, or of its scores
        reading: folder of the reading test; by default `reading` in the run's folder
    """
    given = Path(folder).expanduser()
    scores = next((place for place in (given, given / "metrics") if (place / PER_CASE).is_file()), given)
    run = scores.parent if scores.name == "metrics" or not (scores / "tensorboard").is_dir() else scores
    if (given / FACTS).is_file():
        print(f"Written to {write_training_page(given)}")
        if not (scores / PER_CASE).is_file():
            return
    page = write_run_page(scores, run, Path(reading).expanduser() if reading else None)
    print(f"Written to {page}")
