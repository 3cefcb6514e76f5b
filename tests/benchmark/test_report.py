from __future__ import annotations

import json

import pytest

from scripts.benchmark.report import Report, describe_machine
from scripts.benchmark.setup import GUIDED, PLAIN, Setup
from scripts.benchmark.timing import Spread

BOTH = {PLAIN: "10 s", GUIDED: "12 s"}


@pytest.fixture
def report(tmp_path):
    return Report(tmp_path / "out", "A machine.")


def rows(report):
    lines = report.write().read_text().splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]


def test_each_measurement_is_written_at_once(report, make_setup):
    report.record(make_setup(), task="forward", round=0)
    (line,) = (report.folder / "measurements.jsonl").read_text().splitlines()
    assert json.loads(line)["task"] == "forward"
    assert json.loads(line)["setup"]["roi"] == 64


def test_table_holds_ratio_quartiles_and_whether_the_goal_is_met(report, make_setup):
    full = Setup("a BERT-base")
    report.compare(full, "forward", BOTH, Spread(1.204, 1.1, 1.3), Spread(1.5, 1.5, 1.5))
    report.compare(full, "training step", BOTH, Spread(1.2, 1.2, 1.2))
    title, _, first, second = rows(report)
    assert dict(zip(title, first, strict=True)) == {
        "task": "forward",
        "setting": "96^3, feature size 48, batch 1, fp32",
        "classes": "15",
        PLAIN: "10 s",
        GUIDED: "12 s",
        "ratio": "1.20",
        "quartiles": "1.10 to 1.30",
        "ratio, wall": "1.50",
        "goal": "1.20, missed",
    }
    assert second[-3:] == ["", "", "1.35, met"]
    assert report.write().read_text().startswith("A machine.")


@pytest.mark.parametrize("change", [{"classes": 2}, {"roi": 64}, {"depth": 1}, {"use_checkpoint": True}])
def test_goals_are_for_one_size_alone(report, change):
    report.compare(Setup("a BERT-base", **change), "forward", BOTH, Spread(1.0, 1.0, 1.0))
    assert rows(report)[-1][-1] == ""


def test_shares_have_goals_of_their_own(report, make_setup):
    report.count(make_setup(), "case after the network", Spread(0.2, 0.1, 0.3), "{:.1%}")
    report.count(make_setup(), "scores of a case", Spread(2.0, 2.0, 2.0), "{:.2f} s")
    assert [row[3:] for row in rows(report)[-2:]] == [
        ["20.0%", "10.0% to 30.0%", "15%, missed"],
        ["2.00 s", "", ""],
    ]


def test_folder_with_measurements_raises_and_is_left(report, make_setup):
    report.record(make_setup(), task="forward")
    with pytest.raises(FileExistsError, match="holds measurements already; choose another `output_dir`"):
        Report(report.folder, "Another.")


def test_machine_is_described_with_its_threads():
    assert "3 threads used" in describe_machine(3)
    assert "torch 2" in describe_machine(0)
