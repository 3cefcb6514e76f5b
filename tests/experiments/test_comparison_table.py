from __future__ import annotations

import math
from dataclasses import replace

import pytest

from scripts.experiments.comparison import Score, Scored
from scripts.experiments.comparison_table import Comparison
from scripts.experiments.cost import Cost

NAN = math.nan


def run(*cases: tuple[str, float, float, float]) -> list[Score]:
    return [Score(case, "liver", dice, hd95, nsd, dice == 0, False, True) for case, dice, hd95, nsd in cases]


FULL = Scored("full", "Full", {(0, 0): run(("a", 0.8, 2.0, 0.9), ("b", 0.6, 4.0, 0.7))}, cost=Cost(6_460_000))
PLAIN = Scored("plain", "Old | 1", {(0, 0): run(("a", 0.7, 2.0, 0.9), ("b", 0.4, 3.0, 0.7))}, cost=Cost(3_750_000))
LOST = Scored("lost", "Lost", {(0, 0): run(("a", 0.9, 1.0, 0.9), ("b", 0.0, NAN, 0.0))})

SNAPSHOT = """\
| experiment | DSC % | HD95 mm | NSD % | missed | params M | difference in DSC [95% CI] | p (Holm) |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| Full (reference) | **70.00** ± 14.14 | 3.00 ± 1.41 | **80.00** ± 14.14 | 0 of 2 | 6.46 | – | – |
| Old \\| 1 | 55.00 ± 21.21 | **2.50** ± 0.71 | **80.00** ± 14.14 | 0 of 2 | 3.75 | -15.00 [-20.00, -10.00] | 0.500 |

Mean over 2 cases (validation) ± standard deviation over the 2 cases of one run: the mean over the classes, \
each over its cases, as in an evaluation. Best in bold. A missed class counts 0 in DSC and NSD; HD95 is over \
the classes that were found.

Difference from 'Full' in points of DSC, paired by case (n = 2), with a bootstrap interval; p of Wilcoxon's \
signed-rank test, two-sided, after Holm's correction for 1 experiment.

| DSC % | Full | Old \\| 1 |
| --- | ---: | ---: |
| liver | **70.00** | 55.00 |
"""  # noqa: RUF001 - the dash of an empty cell


def rows(comparison: Comparison) -> dict[str, list[str]]:
    """The cells of the first table, by the first."""
    lines = comparison.markdown().split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return {cell[0]: cell[1:] for cell in cells}


def test_table_as_it_is_printed() -> None:
    assert Comparison([FULL, PLAIN], reference="full").markdown() == SNAPSHOT


def test_equal_prints_are_all_best() -> None:
    nearly = Scored("nearly", "Nearly", {(0, 0): run(("a", 0.80001, 2.0, 0.9), ("b", 0.6, 4.0, 0.7))})
    found = rows(Comparison([FULL, nearly]))
    assert found["Full"][0].startswith("**70.00**")
    assert found["Nearly"][0].startswith("**70.00**")


def test_hd95_has_no_best_where_different_numbers_were_missed() -> None:
    comparison = Comparison([FULL, LOST])
    found = rows(comparison)
    assert found["Lost"][1] == "1.00"  # over one case: no spread
    assert found["Lost"][3] == "1 of 2"
    assert "**" not in found["Full"][1]
    assert "HD95 has no best" in comparison.markdown()
    assert "HD95 has no best" not in Comparison([FULL, PLAIN]).markdown()


def test_spread_is_over_the_runs_where_there_are_several() -> None:
    first = run(("a", 0.9, 2.0, 0.9), ("d", 0.7, 2.0, 0.9))  # 0.8
    runs = {(0, 0): first, (1, 0): run(("b", 0.6, 4.0, 0.7)), (2, 0): run(("c", 0.7, 3.0, 0.8))}
    text = Comparison([Scored("full", "Full", runs)], evaluate_on="test").markdown()
    assert "| Full | 72.50 ± 10.00 |" in text
    assert "Mean over 4 cases (test) ± standard deviation over the means of the 3 runs (folds x seeds)" in text


def test_a_case_without_a_class_costs_no_table() -> None:
    empty = Score("c", "liver", NAN, NAN, NAN, False, False, False)
    spurious = Score("c", "liver", 0.0, NAN, 0.0, False, True, False)
    full = Scored("full", "Full", {(0, 0): [*FULL.runs[0, 0], empty]})
    plain = Scored("plain", "Plain", {(0, 0): [*PLAIN.runs[0, 0], spurious]})
    text = Comparison([full, plain], reference="full").markdown()
    assert "Mean over 2 to 3 cases (validation) ± standard deviation over the 2 to 3 cases of one run" in text
    assert "paired by case (n = 2)" in text
    assert "-15.00 [-20.00, -10.00]" in text


class TestIncomplete:
    @pytest.fixture
    def comparison(self) -> Comparison:
        both = Scored("full", "Full", {(0, 0): run(("a", 0.8, 2.0, 0.9)), (1, 0): run(("b", 0.6, 4.0, 0.7))})
        half = Scored("half", "Half", {(0, 0): run(("a", 0.9, 2.0, 0.9))})
        failures = {"none fold 0 seed 0": "training ended with status 1"}
        return Comparison([both, half, Scored("none", "None", {})], reference="full", failures=failures)

    def test_missing_and_failed_runs_are_named(self, comparison: Comparison) -> None:
        text = comparison.markdown()
        assert "INCOMPLETE: half lacks fold 1 seed 0." in text
        assert "INCOMPLETE: none lacks fold 0 seed 0, fold 1 seed 0." in text
        assert "FAILED: none fold 0 seed 0: training ended with status 1" in text

    def test_fewer_runs_are_neither_best_nor_tested(self, comparison: Comparison) -> None:
        found = rows(comparison)
        assert found["Half (1 of 2 runs)"][0] == "90.00"
        assert found["None (0 of 2 runs)"][0] == "–"  # noqa: RUF001
        assert comparison.tests == {}
        assert "No test: 'full' or all others lack runs, or cases with a score." in comparison.markdown()

    def test_nothing_at_all(self) -> None:
        comparison = Comparison([Scored("full", "Full", {})], reference="full", failures={"full fold 0 seed 0": "x"})
        assert comparison.markdown().startswith("No run is complete")
        assert "FAILED: full fold 0 seed 0: x" in comparison.markdown()
        assert comparison.summary_rows() == comparison.test_rows() == []


def test_unknown_reference_raises() -> None:
    with pytest.raises(ValueError, match="The reference 'best' is none of the experiments: full, plain"):
        Comparison([FULL, PLAIN], reference="best")


def test_different_cases_raise_even_without_a_reference() -> None:
    other = Scored("other", "Other", {(0, 0): run(("z", 0.7, 2.0, 0.9))})
    with pytest.raises(ValueError, match="different cases"):
        Comparison([FULL, other])


def test_rows_for_csv_hold_fractions() -> None:
    comparison = Comparison([FULL, PLAIN], reference="full")
    assert [(row["experiment"], row["class"]) for row in comparison.summary_rows()] == [
        ("full", "liver"),
        ("full", "mean"),
        ("plain", "liver"),
        ("plain", "mean"),
    ]
    assert comparison.summary_rows()[1]["dice_mean"] == pytest.approx(0.7)
    (test,) = comparison.test_rows()
    assert (test["experiment"], test["reference"], test["cases"]) == ("plain", "full", 2)
    assert test["difference"] == pytest.approx(-0.15)


def test_costs_that_are_known_have_a_column() -> None:
    full = replace(FULL, cost=Cost(6_460_000, 12_340_000_000, 0.1234, 3 * 2**30, "cpu"))
    comparison = Comparison([full, PLAIN])
    head, _, first, second, *_ = comparison.markdown().splitlines()
    assert head.endswith("| missed | params M | GFLOPs | s/iteration | peak GiB |")
    assert first.endswith("| 6.46 | 12.34 | 0.123 | 3.00 |")
    assert second.endswith("| 3.75 | – | – | – |")  # noqa: RUF001
    assert "two for each multiplication" in comparison.markdown()
    assert comparison.cost_rows()[0] == {
        "experiment": "Full", "params M": "6.46", "GFLOPs": "12.34", "s/iteration": "0.123", "peak GiB": "3.00",
        "device": "cpu",
    }  # fmt: skip
    assert comparison.summary_rows()[0]["peak_bytes"] == 3 * 2**30


def test_without_costs_there_is_no_table_of_them() -> None:
    assert Comparison([LOST]).cost_rows() == []
    assert "params" not in Comparison([LOST]).markdown()
