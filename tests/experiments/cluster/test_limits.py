from __future__ import annotations

from pathlib import Path

import pytest

from scripts.experiments.cluster.limits import Limits, read_limits


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    return path


def test_fields_of_the_file_are_submitits_parameters(tmp_path: Path) -> None:
    limits = read_limits(written(tmp_path, "{partition: gpu, minutes: 90, memory_gb: 32, parallel: 3, qos: }\n"))
    assert limits.parameters() == {
        "time": 90,
        "cpus_per_task": 4,
        "mem": "32GB",
        "gpus_per_node": 1,
        "signal_delay_s": 120,
        "array_parallelism": 3,
        "partition": "gpu",
    }
    assert str(limits) == "90 minutes, 4 cpus, 1 gpus, 32 GB, partition gpu"


def test_without_a_file_the_defaults() -> None:
    assert read_limits(None) == Limits()


def test_no_gpu_is_none_asked_for(tmp_path: Path) -> None:
    assert "gpus_per_node" not in read_limits(written(tmp_path, "gpus: 0\n")).parameters()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{time: 3}", r"limits\.yaml.*'time'"),
        ("{minutes: 0}", r"limits\.yaml': minutes is 0; expected a whole number from 1"),
        ("{minutes: '1:00'}", r"minutes is '1:00'; expected a whole number from 1"),
        ("{gpus: 2}", r"gpus is 2; expected 0 or 1, since a run is one process"),
        ("{partition: 3}", r"partition is 3; expected a name as `sinfo`"),
        ('{partition: "gpu\\nrm -r x"}', r"partition is 'gpu\\nrm -r x'; expected a name"),
        ("{account: $(whoami)}", r"account is '\$\(whoami\)'; expected a name"),
        ("[1]", "expected a mapping|a mapping with"),
    ],
)
def test_what_is_no_limit_raises(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_limits(written(tmp_path, text))


def test_absent_file_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There are no limits"):
        read_limits(tmp_path / "x.yaml")
