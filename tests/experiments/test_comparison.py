from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from scripts.experiments.comparison import (
    Score,
    Scored,
    bootstrap_interval,
    case_values,
    check_comparable,
    holm,
    paired_tests,
    read_scores,
    summarise,
)
from scripts.metrics.report import MetricsReport
from scripts.metrics.scores import ClassScore

NAN = math.nan


def score(case: str, class_name: str, dice: float, hd95: float = 1.0, **flags: bool) -> Score:
    return Score(
        case, class_name, dice, hd95, dice / 2, **{"missed": False, "spurious": False, "present": True, **flags}
    )


def missed(case: str, class_name: str) -> Score:
    return score(case, class_name, 0.0, NAN, missed=True)


def of_cases(name: str, **values: float) -> Scored:
    return Scored(name, name, {(0, 0): [score(case, "liver", value) for case, value in values.items()]})


@pytest.fixture
def two_runs() -> Scored:
    """Case `a` is scored by both runs, `b` and `c` by one each."""
    first = [score("a", "liver", 0.8, 4.0), score("a", "aorta", 0.4, 2.0)]
    first += [score("b", "liver", 0.6, 6.0), missed("b", "aorta")]
    second = [score("a", "liver", 0.6, 8.0), score("a", "aorta", 0.2, 4.0)]
    second += [score("c", "liver", 0.9, 1.0), score("c", "aorta", NAN, NAN, present=False)]
    return Scored("full", "Full", {(0, 0): first, (0, 1): second})


class TestCaseValues:
    def test_classes_then_runs_are_averaged(self, two_runs: Scored) -> None:
        # a: ((0.8 + 0.4) / 2 + (0.6 + 0.2) / 2) / 2; b counts its missed class; c has the liver alone
        assert case_values(two_runs, "dice") == pytest.approx({"a": 0.5, "b": 0.3, "c": 0.9})

    def test_one_class(self, two_runs: Scored) -> None:
        assert case_values(two_runs, "dice", "aorta") == pytest.approx({"a": 0.3, "b": 0.0})

    def test_a_case_without_a_value_is_left_out(self, two_runs: Scored) -> None:
        assert case_values(two_runs, "hd95_mm", "aorta") == pytest.approx({"a": 3.0})


class TestSummary:
    def test_mean_and_spread_by_hand(self, two_runs: Scored) -> None:
        mean = summarise(two_runs)[-1]
        # liver: a 0.7, b 0.6, c 0.9; aorta: a 0.3, b 0
        assert mean.mean["dice"] == pytest.approx((2.2 / 3 + 0.15) / 2)
        assert mean.sd_cases["dice"] == pytest.approx(statistics.stdev([0.5, 0.3, 0.9]))
        # the runs: liver 0.7 and aorta 0.2; liver 0.75 and aorta 0.2
        assert mean.sd_runs["dice"] == pytest.approx(statistics.stdev([0.45, 0.475]))
        assert mean.cases == 3

    def test_hd95_is_over_the_found_and_the_missed_are_counted(self, two_runs: Scored) -> None:
        liver, aorta, mean = summarise(two_runs)
        assert (liver.class_name, aorta.class_name, mean.class_name) == ("liver", "aorta", "mean")
        assert (liver.missed, aorta.missed, mean.missed) == (0, 1, 1)
        assert (liver.present, aorta.present, mean.present) == (4, 3, 7)
        # liver: a 6, b 6, c 1; aorta: a 3
        assert mean.mean["hd95_mm"] == pytest.approx((13 / 3 + 3) / 2)

    def test_one_run_has_no_spread_over_runs(self) -> None:
        mean = summarise(of_cases("full", a=0.5, b=0.7))[-1]
        assert math.isnan(mean.sd_runs["dice"])
        assert mean.sd_cases["dice"] == pytest.approx(statistics.stdev([0.5, 0.7]))

    def test_agrees_with_the_report_of_one_run(self, write_scores: Callable[..., Path]) -> None:
        report = _random_report(5)
        scores = read_scores(write_scores(report))
        rows = report.summary()
        for row, summary in zip(rows[:-1], summarise(Scored("x", "x", {(0, 0): scores}))[:-1], strict=True):
            assert summary.mean["dice"] == pytest.approx(row["dice_mean"], abs=1e-6)
            assert summary.sd_cases["nsd"] == pytest.approx(row["nsd_sd"], abs=1e-6)
            assert summary.mean["hd95_mm"] == pytest.approx(row["hd95_mm_mean"], abs=1e-6)
            assert (summary.missed, summary.spurious) == (row["missed"], row["spurious"])
        mean = summarise(Scored("x", "x", {(0, 0): scores}))[-1]
        assert [mean.mean[metric] for metric in ("dice", "hd95_mm", "nsd")] == pytest.approx(
            [rows[-1][f"{metric}_mean"] for metric in ("dice", "hd95_mm", "nsd")], abs=1e-6
        )

    def test_a_class_that_few_cases_have_counts_as_much_as_others(self) -> None:
        """The evaluation of the same rows says the same: a mean over the cases would say 0.633."""
        rows = [score("a", "liver", 0.8), score("a", "aorta", 0.0), score("b", "liver", 0.8)]
        rows += [score("c", "liver", 0.8), score("b", "aorta", NAN, NAN, present=False)]
        assert summarise(Scored("x", "x", {(0, 0): rows}))[-1].mean["dice"] == pytest.approx(0.4)


class TestPairedTest:
    def test_against_scipy_and_by_hand(self) -> None:
        rng = np.random.default_rng(0)
        theirs = {f"case{n}": float(v) for n, v in enumerate(rng.uniform(0.4, 0.9, 12))}
        mine = {case: value + float(rng.normal(0.02, 0.03)) for case, value in theirs.items()}
        test = paired_tests(of_cases("ref", **theirs), [of_cases("mine", **mine)])["mine"]
        expected = scipy.stats.wilcoxon(list(mine.values()), list(theirs.values()), alternative="two-sided")
        assert test.p == pytest.approx(expected.pvalue)
        assert test.difference == pytest.approx(statistics.fmean(mine[c] - theirs[c] for c in theirs))
        assert test.low < test.difference < test.high
        assert test.cases == 12

    def test_p_value_by_enumeration(self) -> None:
        """Under the null each sign is a coin: 3 of the 16 assignments on either side have a rank sum as far out."""
        differences = [0.04, -0.01, 0.03, 0.02]  # ranks 4, -1, 3, 2: the negative ranks sum to 1
        cases = {f"c{n}": 0.5 for n in range(4)}
        mine = {case: 0.5 + d for case, d in zip(cases, differences, strict=True)}
        sums = [sum(r for r, sign in zip((1, 2, 3, 4), signs, strict=True) if sign) for signs in SIGNS]
        expected = sum(min(s, 10 - s) <= 1 for s in sums) / len(sums)
        assert paired_tests(of_cases("ref", **cases), [of_cases("x", **mine)])["x"].p == pytest.approx(expected)

    def test_no_difference_is_no_evidence(self) -> None:
        test = paired_tests(of_cases("ref", a=0.5, b=0.6), [of_cases("same", a=0.5, b=0.6)])["same"]
        assert (test.p, test.difference, test.low, test.high) == (1.0, 0.0, 0.0, 0.0)

    def test_p_values_are_corrected_over_the_experiments(self) -> None:
        cases = {f"c{n}": 0.5 for n in range(8)}
        better = {case: 0.5 + 0.01 * (n + 1) for n, case in enumerate(cases)}
        tests = paired_tests(of_cases("ref", **cases), [of_cases("x", **better), of_cases("y", **better)])
        assert tests["x"].p == pytest.approx(2 / 256)
        assert tests["x"].p_holm == pytest.approx(4 / 256)

    def test_a_case_without_a_class_is_paired_where_both_predict_something(self) -> None:
        empty = score("b", "liver", NAN, NAN, present=False)
        spurious = score("b", "liver", 0.0, NAN, present=False, spurious=True)
        reference = Scored("ref", "ref", {(0, 0): [score("a", "liver", 0.5), empty]})
        other = Scored("x", "x", {(0, 0): [score("a", "liver", 0.6), spurious]})
        for test in (paired_tests(reference, [other])["x"], paired_tests(other, [reference])["ref"]):
            assert (abs(test.difference), test.cases) == (pytest.approx(0.1), 1)

    def test_without_a_pair_there_is_no_test(self) -> None:
        reference = Scored("ref", "ref", {(0, 0): [score("a", "liver", NAN, NAN, present=False)]})
        assert paired_tests(reference, [of_cases("x", a=0.0)]) == {}

    def test_the_order_of_the_rows_does_not_matter(self) -> None:
        forward, backward = of_cases("x", a=0.5, b=0.9, c=0.7), of_cases("x", c=0.7, b=0.9, a=0.5)
        reference = of_cases("ref", b=0.6, a=0.4, c=0.75)
        assert paired_tests(reference, [forward]) == paired_tests(reference, [backward])

    def test_lacking_runs_raise(self) -> None:
        reference = of_cases("ref", a=0.5, b=0.6)
        more = Scored("more", "more", {**reference.runs, (1, 0): [score("c", "liver", 0.5)]})
        with pytest.raises(ValueError, match=r"'more' cannot be tested against 'ref': .* has fold 1 seed 0"):
            paired_tests(reference, [more])

    def test_fewer_runs_on_the_same_cases_raise(self) -> None:
        reference = of_cases("ref", a=0.5, b=0.6)
        twice = Scored("twice", "twice", {**reference.runs, (1, 0): reference.runs[0, 0]})
        with pytest.raises(ValueError, match=r"one of them alone has fold 1 seed 0\. Complete both"):
            paired_tests(reference, [twice])


SIGNS = list(itertools.product((False, True), repeat=4))


class TestBootstrap:
    def test_is_near_the_normal_interval_and_repeats(self) -> None:
        values = np.random.default_rng(1).normal(0.1, 1.0, 400)
        low, high = bootstrap_interval(values)
        half = 1.96 * values.std(ddof=1) / 20
        assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
        assert bootstrap_interval(values) == (low, high)

    @pytest.mark.parametrize("count", [1, 3])
    def test_equal_values_have_one_mean(self, count: int) -> None:
        assert bootstrap_interval(np.full(count, 0.25)) == (0.25, 0.25)

    def test_two_values_have_three_means(self) -> None:
        assert bootstrap_interval(np.array([0.0, 1.0])) == (0.0, 1.0)


class TestHolm:
    @pytest.mark.parametrize(
        ("p_values", "expected"),
        [
            ([], []),
            ([0.03], [0.03]),
            ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 * 0.01, then 2 * 0.03, then no less than that
            ([0.5, 0.4], [0.8, 0.8]),
            ([0.9, 0.8], [1.0, 1.0]),
        ],
    )
    def test_by_hand(self, p_values: list[float], expected: list[float]) -> None:
        assert holm(p_values) == pytest.approx(expected)


class TestComparable:
    def test_other_cases_raise(self) -> None:
        with pytest.raises(ValueError, match=r"'y' and 'x' cannot be compared.*different cases, \['b', 'c'\]"):
            check_comparable([of_cases("x", a=0.5, b=0.5), of_cases("y", a=0.5, c=0.5)])

    def test_other_classes_raise(self) -> None:
        other = Scored("y", "y", {(0, 0): [score("a", "spleen", 0.5)]})
        with pytest.raises(ValueError, match=r"different classes, \['liver', 'spleen'\]"):
            check_comparable([of_cases("x", a=0.5), other])

    def test_other_runs_may_have_other_cases(self) -> None:
        check_comparable([of_cases("x", a=0.5), Scored("y", "y", {(1, 0): [score("z", "liver", 0.5)]})])


class TestReading:
    def test_gives_back_what_evaluating_wrote(self, write_scores: Callable[..., Path]) -> None:
        cases = [("/x/a.nii.gz", [ClassScore(0.5, 2.0, 0.25, 9, 8), ClassScore(0.0, NAN, 0.0, 7, 0)])]
        cases += [("/x/b.nii.gz", [ClassScore(0.0, NAN, 0.0, 0, 3), ClassScore(NAN, NAN, NAN, 0, 0)])]
        found = read_scores(write_scores(MetricsReport(["liver", "aorta"], cases)))
        assert [(s.case, s.class_name) for s in found] == [(c, n) for c in "ab" for n in ("liver", "aorta")]
        assert [(s.missed, s.spurious, s.present) for s in found] == [
            (False, False, True),
            (True, False, True),
            (False, True, False),
            (False, False, False),
        ]
        assert (found[0].dice, found[0].hd95_mm, found[0].nsd) == (0.5, 2.0, 0.25)
        assert math.isnan(found[1].hd95_mm)

    def test_absent_file_raises(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="evaluate that run first"):
            read_scores(tmp_path / "metrics_per_case.csv")

    def test_foreign_file_raises(self, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text("case,dice\na,1\n")
        with pytest.raises(ValueError, match=r"x\.csv' lacks the columns class, hd95_mm, missed, nsd"):
            read_scores(tmp_path / "x.csv")

    @pytest.mark.parametrize("bad", ["a,liver,half,1,1,False,False,3,3", "a,liver,0.5"])
    def test_damaged_file_raises(self, write_scores: Callable[..., Path], bad: str) -> None:
        path = write_scores(_random_report(2))
        path.write_text(path.read_text() + bad + "\n")
        with pytest.raises(ValueError, match=r"metrics_per_case\.csv' is damaged"):
            read_scores(path)

    def test_case_twice_raises(self, write_scores: Callable[..., Path]) -> None:
        same = [("a.nii", [ClassScore(0.5, 2.0, 0.25, 9, 8)])] * 2
        with pytest.raises(ValueError, match=r"has case 'a' twice"):
            read_scores(write_scores(MetricsReport(["liver"], same)))


@pytest.fixture
def write_scores(tmp_path: Path) -> Callable[[MetricsReport], Path]:
    return lambda report: report.write(tmp_path / "scores")[0]


def _random_report(cases: int) -> MetricsReport:
    rng = np.random.default_rng(3)
    rows = []
    for n in range(cases):
        found = ClassScore(float(rng.uniform()), float(rng.uniform(1, 9)), float(rng.uniform()), 100, 90)
        lost = ClassScore(0.0, NAN, 0.0, 40, 0)
        rows.append((f"case{n}", [found, lost if n == 1 else found]))
    return MetricsReport(["liver", "aorta"], rows)
