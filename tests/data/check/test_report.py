"""What the reports of the cases say of the set, and how it is shown."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.data.check.case import CaseReport
from scripts.data.check.report import (
    Finding,
    Settings,
    cache_bytes,
    case_table,
    class_table,
    csv_rows,
    find_faults,
    problem_lines,
)
from scripts.geometry.grid import Grid
from scripts.whole_file import write_rows

GOOD = CaseReport(
    "c",
    channels=1,
    grid=Grid((10, 12, 8), (2.0, 2.0, 2.5), "LPS"),
    resampled=(20, 24, 20),
    cached=1000,
    values=(-1000.0, 100.25),
    span=0.6,
    clipped=0.95,
    labelled_clipped=0.02,
    nonzero=0.9,
    counts=(27, 24),
)


@pytest.fixture
def reports() -> list[CaseReport]:
    return [replace(GOOD, case=f"c{number}", fold=number % 3) for number in range(6)]


@pytest.fixture
def settings() -> Settings:
    cases = {f"c{number}": number % 3 for number in range(6)}
    parts = [frozenset(case for case, number in cases.items() if number != fold) for fold in range(3)]
    return Settings(("alpha", "beta"), (1.0, 1.0, 1.0), (32, 32, 32), 1.0, parts, 0, memory=10_000)


def changed(reports: list[CaseReport], *numbers: int, **values: Any) -> list[CaseReport]:
    return [replace(report, **values) if number in numbers else report for number, report in enumerate(reports)]


class TestFindFaults:
    def test_good_cases_leave_nothing_to_say(self, reports: list[CaseReport], settings: Settings) -> None:
        assert find_faults(reports, settings) == []

    @pytest.mark.parametrize(
        ("numbers", "values", "fatal", "text"),
        [
            ((1,), {"problems": ["x"]}, True, "1 of 6 cases (c1) cannot be used"),
            ((2,), {"span": 0.04}, True, "1 of 6 cases (c2) with values that fill less than 5% of the intensity"),
            ((2,), {"labelled_clipped": 0.95}, True, "1 of 6 cases (c2) with over 90% of the labelled voxels clipped"),
            ((2, 3), {"labelled_clipped": 0.2}, False, "2 of 6 cases (c2, c3) with over 10% of the labelled voxels"),
            (range(5), {"nonzero": 0.001}, False, "5 of 6 cases (c0, c1, c2 and 2 more) with under 1%"),
            ((4,), {"cut_off": 1}, False, "1 of 6 cases (c4) with labelled voxels outside the foreground"),
            ((4,), {"counts": (0, 0)}, False, "1 of 6 cases (c4) without a labelled voxel"),
            ((4,), {"oriented": False}, False, "1 of 6 cases (c4) with a header that does not say how the axes lie"),
            ((4,), {"grid": GOOD.grid._replace(spacing=(1.0, 1.0, 3.1))}, False, "by more than 3 along some axis"),
            (range(6), {"resampled": (15, 24, 20)}, False, "32 voxels along right, the median volume 15"),
            (range(6), {"counts": (27, 0)}, True, "class 'beta' is in no case: check the order of the classes"),
            (range(6), {"counts": None}, False, "the classes of no case could be counted"),
            (
                (0, 3),
                {"cached": 3000},
                False,
                "caching takes up to 0.01 MB of this machine's 0.01 MB: lower cache_rate",
            ),
        ],
    )
    def test_finds(
        self,
        reports: list[CaseReport],
        settings: Settings,
        numbers: range,
        values: dict[str, Any],
        fatal: bool,
        text: str,
    ) -> None:
        (finding,) = find_faults(changed(reports, *numbers, **values), settings)
        assert finding.fatal == fatal
        assert text in finding.text

    def test_a_class_that_a_fold_does_not_train_on(self, reports: list[CaseReport], settings: Settings) -> None:
        """Class beta is in cases 0 and 3 alone, which fold 0 holds out."""
        found = find_faults(changed(reports, 1, 2, 4, 5, counts=(27, 0)), settings)
        advice = "split the cases anew, by 'fold' keys or another seed"
        text = f"class 'beta' is in no case that fold 0 trains on (c0, c3): {advice}"
        assert found == [Finding(True, text)]
        found = find_faults(changed(reports, 1, 2, 4, 5, counts=(27, 0)), replace(settings, fold=1))
        assert found == [Finding(False, text)]

    def test_classes_of_the_test_section_do_not_count(self, reports: list[CaseReport], settings: Settings) -> None:
        test = replace(GOOD, case="t", section="test", counts=(1, 1))
        found = find_faults([*changed(reports, *range(6), counts=(27, 0)), test], settings)
        assert [finding.fatal for finding in found] == [True]

    def test_errors_come_first(self, reports: list[CaseReport], settings: Settings) -> None:
        found = find_faults(changed(changed(reports, 1, oriented=False), 2, problems=["x"]), settings)
        assert [finding.fatal for finding in found] == [True, False]

    def test_memory_of_the_cache_is_that_of_its_share(self, reports: list[CaseReport]) -> None:
        assert cache_bytes([*reports, replace(GOOD, section="test")], 0.5) == 3000


class TestTables:
    def test_a_line_a_case(self, reports: list[CaseReport]) -> None:
        lines = case_table([*reports[:1], CaseReport("t", "test", problems=["x"])], 10)
        assert lines[0].split()[-4:] == ["clipped", "labelled", "classes", "usable"]
        assert " ".join(lines[1].split()) == "c0 0 10x12x8 2x2x2.5 LPS 20x24x20 -1000 to 100.2 95% 2% 2/2 yes"
        assert lines[2].split() == ["t", "test", *"-" * 8, "NO"]
        assert len({len(line) for line in lines}) == 1

    def test_without_a_window_the_share_that_is_not_zero_is_shown(self, reports: list[CaseReport]) -> None:
        lines = case_table(changed(reports, *range(6), clipped=None), 10)
        assert lines[0].split()[-3:] == ["nonzero", "classes", "usable"]
        assert lines[1].split()[-3:] == ["90%", "2/2", "yes"]

    def test_long_tables_are_cut_and_show_bad_cases_first(self, reports: list[CaseReport]) -> None:
        lines = case_table(changed(reports, 4, problems=["x"]), 2)
        assert [line.split()[0] for line in lines[1:]] == ["c4", "c0", "and"]
        assert lines[-1] == "and 4 more; --output FILE.csv holds them all"
        bad = changed(reports, *range(6), problems=["a", "b"])
        assert problem_lines(bad, 3) == ["c0: a", "c0: b", "c1: a", "and 9 more; --output FILE.csv holds them all"]
        assert problem_lines(reports, 3) == []

    def test_a_line_a_class(self, reports: list[CaseReport], settings: Settings) -> None:
        found = changed(changed(reports, 1, counts=(27, 0)), 2, counts=(5, 99))
        assert [line.split() for line in class_table(found, settings)[1:]] == [
            ["alpha", "6/6", "4", "4", "4", "5", "27", "27"],
            ["beta", "5/6", "3", "4", "3", "24", "24", "99"],
        ]

    def test_csv_holds_every_number(self, reports: list[CaseReport], tmp_path: Path) -> None:
        rows = csv_rows([*reports, CaseReport("bad", problems=["a", "b"])], ("alpha", "beta"))
        write_rows(tmp_path / "cases.csv", rows)
        with (tmp_path / "cases.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        assert len(read) == 7
        assert (read[0]["voxels of alpha"], read[0]["voxels of beta"]) == ("27", "24")
        assert (read[0]["spacing_mm"], read[0]["clipped"]) == ("2x2x2.5", "0.95")
        assert (read[6]["problems"], read[6]["voxels"]) == ("a | b", "")
        assert [path.name for path in tmp_path.iterdir()] == ["cases.csv"]
