from __future__ import annotations

import csv
import errno
import math
from pathlib import Path

import pytest

from scripts.metrics import ClassScore, MetricsReport
from scripts.metrics.report import check_output_folder, short_names

NAN = math.nan
FOUND = ClassScore(0.9, 2.0, 0.8, 100, 90)
POOR = ClassScore(0.5, 6.0, 0.4, 100, 50)
MISSED = ClassScore(0.0, NAN, 0.0, 40, 0)
SPURIOUS = ClassScore(0.0, NAN, 0.0, 0, 7)
ABSENT = ClassScore(NAN, NAN, NAN, 0, 0)


@pytest.fixture
def report() -> MetricsReport:
    return MetricsReport(
        ["liver", "left kidney"],
        [("/data/b.nii.gz", [FOUND, MISSED]), ("/data/a.nii.gz", [POOR, FOUND]), ("c", [SPURIOUS, ABSENT])],
    )


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_summary_counts_missed_and_spurious_as_zero_and_leaves_absent_out(report: MetricsReport) -> None:
    liver, kidney, mean = report.summary()
    assert liver == pytest.approx(
        {
            "class": "liver",
            "dice_mean": 1.4 / 3,
            "dice_sd": math.sqrt(0.61 / 3),
            "dice_median": 0.5,
            "hd95_mm_mean": 4.0,
            "hd95_mm_sd": math.sqrt(8),
            "hd95_mm_median": 4.0,
            "nsd_mean": 0.4,
            "nsd_sd": 0.4,
            "nsd_median": 0.4,
            "missed": 0,
            "spurious": 1,
            "absent": 0,
            "cases": 3,
        }
    )
    assert [kidney[key] for key in ("dice_mean", "hd95_mm_mean", "nsd_mean")] == pytest.approx([0.45, 2.0, 0.4])
    assert [kidney[key] for key in ("missed", "spurious", "absent", "cases")] == [1, 0, 1, 2]
    assert math.isnan(kidney["hd95_mm_sd"])  # type: ignore[arg-type]
    assert mean["class"] == "mean"
    assert mean["dice_mean"] == pytest.approx((1.4 / 3 + 0.45) / 2)
    assert mean["hd95_mm_mean"] == pytest.approx(3.0)
    assert [mean[key] for key in ("missed", "spurious", "absent", "cases")] == [1, 1, 1, 5]


def test_files_hold_one_row_a_case_and_class_and_the_summary(report: MetricsReport, tmp_path: Path) -> None:
    per_case, summary = report.write(tmp_path / "new" / "folder")
    rows = read(per_case)
    assert list(rows[0]) == [
        *("case", "class", "dice", "hd95_mm", "nsd", "missed", "spurious"),
        *("voxels_reference", "voxels_prediction"),
    ]
    assert [(row["case"], row["class"]) for row in rows] == [
        (case, name) for case in ("a", "b", "c") for name in ("liver", "left kidney")
    ]
    assert list(rows[3].values()) == [
        "b",
        "left kidney",
        "0.000000",
        "nan",
        "0.000000",
        "True",
        "False",
        "40",
        "0",
    ]
    assert [row["class"] for row in read(summary)] == ["liver", "left kidney", "mean"]
    assert float(read(summary)[0]["hd95_mm_mean"]) == 4.0
    assert sorted(path.name for path in per_case.parent.iterdir()) == [per_case.name, summary.name]


def test_table_aligns_and_marks_missing_values() -> None:
    lines = MetricsReport(["liver", "left kidney"], [("a", [FOUND, MISSED])]).table().splitlines()
    assert lines[0].split("  ")[0] == "class"
    assert len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["liver", "0.9000", "2.0000", "0.8000", "0", "0", "1"]
    assert lines[3].split() == ["left", "kidney", "0.0000", "-", "0.0000", "1", "0", "1"]
    assert lines[-1].split() == ["mean", "0.4500", "2.0000", "0.4000", "1", "0", "2"]


def test_scalars_are_plain_floats_under_flat_names(report: MetricsReport) -> None:
    scalars = report.scalars()
    assert all(type(value) is float for value in scalars.values())
    assert scalars["mean_hd95_mm"] == pytest.approx(3.0)
    assert scalars["missed"] == 1
    assert scalars["dice_left kidney"] == pytest.approx(0.45)
    assert set(report.scalars(["dice"])) == {
        "mean_dice",
        "missed",
        "spurious",
        "dice_liver",
        "dice_left kidney",
    }


def test_report_without_a_case_has_no_values() -> None:
    report = MetricsReport(["liver"], [])
    assert math.isnan(report.scalars()["mean_dice"])
    assert report.per_case() == []


def test_scores_must_match_the_classes() -> None:
    with pytest.raises(ValueError, match="Case 'a' has 1 scores for the 2 classes"):
        MetricsReport(["liver", "spleen"], [("a", [FOUND])])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["/x/a.nii.gz", "/x/b.nii"], ["a", "b"]),
        (["/x/one/seg.nii.gz", "/x/two/seg.nii.gz", "/x/two/seg.nii.gz"], ["one/seg", "two/seg", "two/seg"]),
        (["case 1"], ["case 1"]),
        ([], []),
    ],
)
def test_short_names_stay_distinct(names: list[str], expected: list[str]) -> None:
    assert short_names(names) == expected


def test_unwritable_folder_is_named(tmp_path: Path, report: MetricsReport) -> None:
    (tmp_path / "file").write_text("in the way")
    for action in (check_output_folder, report.write):
        with pytest.raises(OSError, match=r"Cannot write to the output folder.*file.*choose another output_dir"):
            action(tmp_path / "file" / "eval")


def test_full_disk_is_said_and_leaves_the_former_files(
    tmp_path: Path, report: MetricsReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = report.write(tmp_path)[0]
    before = path.read_text()

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("scripts.whole_file.os.replace", full)
    with pytest.raises(OSError, match=r"metrics_per_case.csv': No space left on device. Free space"):
        report.write(tmp_path)
    assert path.read_text() == before
    assert not list(tmp_path.glob(".partial*"))
