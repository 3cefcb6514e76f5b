from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.report.conftest import make_evaluated

from scripts.report.set_page import RunFolder, chosen_cases, write_set_page


@pytest.fixture
def runs(tmp_path: Path, labels: np.ndarray) -> list[RunFolder]:
    scores = {"ours": {"a": 0.9, "b": 0.5, "c": 0.7}, "theirs": {"a": 0.8, "b": 0.6, "c": 0.2}}
    return [
        RunFolder(title, 0, 0, make_evaluated(tmp_path / title / "fold0_seed0" / "test", labels, dice))
        for title, dice in scores.items()
    ]


def test_case_of_the_largest_difference_is_chosen(runs: list[RunFolder]) -> None:
    models = {run.title: run.folder for run in runs}
    assert chosen_cases(models) == {"a": "best", "c": "median; ours and theirs differ most", "b": "worst"}


def test_page_shows_the_models_beside_each_other(runs: list[RunFolder], tmp_path: Path) -> None:
    (runs[0].folder / "report.html").touch()
    path = write_set_page(tmp_path, "test", runs, {"Scores": [{"experiment": "ours", "DSC": 0.12345}]})
    text = path.read_text(encoding="utf-8")
    assert "<td>0.123</td>" in text
    assert '"layers": ["reference", "ours", "theirs"]' in text
    assert 'href="ours/fold0_seed0/test/report.html"' in text
    assert 'href="theirs' not in text
    assert (tmp_path / "report_test_files/a.js").is_file()


def test_reference_is_shown_first(runs: list[RunFolder], tmp_path: Path) -> None:
    text = write_set_page(tmp_path, "test", runs, {}, "theirs").read_text(encoding="utf-8")
    assert '"layers": ["reference", "theirs", "ours"]' in text
    assert "Best, median and worst are those of theirs." in text


def test_set_without_runs_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run scored on 'test'"):
        write_set_page(tmp_path, "test", [], {})
