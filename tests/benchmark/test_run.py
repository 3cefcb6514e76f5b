from __future__ import annotations

import json

import pytest
import torch

from scripts.benchmark.command import benchmark
from scripts.benchmark.memory import peak_memory
from scripts.benchmark.run import MEASUREMENTS
from scripts.benchmark.setup import GUIDED, PLAIN
from scripts.benchmark.tasks import training_step
from scripts.benchmark.timing import Stopwatch

SIZES = {"classes": 2, "roi": 64, "feature_size": 12, "window_size": 4, "depth": 1, "stage_layers": (1, 1, 1, 1)}


@pytest.fixture
def small(small_bert):
    return {**SIZES, "text_encoder": str(small_bert)}


def test_both_networks_share_the_backbone_and_its_weights(make_setup):
    networks = make_setup().networks()
    assert networks[GUIDED].backbone is networks[PLAIN]


def test_step_is_that_of_the_configuration_and_leaves_no_gradients(make_setup):
    setup = make_setup()
    network = setup.networks()[GUIDED]
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    watch = Stopwatch()
    training_step(setup, network)(watch)
    assert list(watch.parts) == ["forward", "loss", "backward", "optimiser"]
    assert all(p.grad is None for p in network.parameters())
    # AdamW's first step moves a weight by about its learning rate, that of dataset_amos22.yaml.
    moved = max((p - before[name]).abs().max().item() for name, p in network.named_parameters())
    assert moved == pytest.approx(1e-4, rel=0.05)


def test_each_figure_is_written_and_tabled(small, tmp_path):
    benchmark(str(tmp_path / "out"), measure="sizes, scores", rounds=2, **small)
    lines = [json.loads(line) for line in (tmp_path / "out/measurements.jsonl").read_text().splitlines()]
    assert [line["task"] for line in lines] == ["parameters", "operations, forward", *["scores of a case"] * 2]
    text = (tmp_path / "out/benchmark.md").read_text()
    assert all(f"| {title} | 64^3" in text for title in ("parameters", "operations, forward", "scores of a case"))


@pytest.mark.slow
def test_everything_is_measured_and_tabled(small, tmp_path, capsys):
    wanted = [name for name in MEASUREMENTS if name != "memory"]
    benchmark(str(tmp_path / "out"), measure=wanted, rounds=1, threads=1, **small)
    lines = [json.loads(line) for line in (tmp_path / "out/measurements.jsonl").read_text().splitlines()]
    timed = [(line["task"], line["name"]) for line in lines if "name" in line]
    assert timed == [
        *((task, name) for task in ("forward", "training step", "whole case") for name in (PLAIN, GUIDED)),
        ("scores of a case", "scores"),
        ("loading", "loading"),
        ("loading", "training step"),
    ]
    case = next(line["parts"] for line in lines if line["task"] == "whole case")
    assert set(case) == {"load", "preprocess", "infer", "labels", "save", "total"}
    assert all(times["wall"] > 0 for times in case.values())
    text = (tmp_path / "out/benchmark.md").read_text()
    for title in ("parameters", "operations, forward", "whole case", "case after the network", "loading, of an epoch"):
        assert f"| {title} |" in text
    assert "written:" in capsys.readouterr().out


def test_sizes_that_are_lists_are_combined(small, tmp_path):
    benchmark(str(tmp_path / "out"), measure="sizes", **{**small, "classes": [2, 3]})
    lines = (tmp_path / "out/benchmark.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith("| parameters")]) == 2


def test_what_was_measured_before_an_error_is_tabled(small, tmp_path):
    with pytest.raises(ValueError, match="divide volumes"):
        benchmark(str(tmp_path / "out"), measure=["sizes"], **{**small, "roi": [64, 50]})
    assert "| parameters | 64^3" in (tmp_path / "out/benchmark.md").read_text()


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(make_setup):
    setup = make_setup(threads=1)
    peaks = [peak_memory(setup, PLAIN, task) for task in ("forward", "training step")]
    hog = torch.ones(2**28)  # 1 GiB here is none of the child's
    assert 10 * 2**20 < peaks[0] < peaks[1] < 2**31
    assert abs(peak_memory(setup, PLAIN, "forward") - peaks[0]) < 0.3 * peaks[0]
    del hog


@pytest.mark.slow
def test_failure_of_the_process_is_quoted(make_setup):
    with pytest.raises(RuntimeError, match=r"training step of the backbone could not be measured.*divide volumes"):
        peak_memory(make_setup(roi=50), PLAIN, "training step")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": ["speed"]}, "`measure` takes sizes, kernels, forward, .*; found speed"),
        ({"precisions": "fp8"}, "`precisions` are fp32, tf32, bf16; found 'fp8'"),
        ({"precisions": "tf32"}, "tf32 is a precision of NVIDIA GPUs; on 'cpu' choose fp32 or bf16"),
        ({"classes": [15, 0]}, "`classes` must be at least 1; found 0"),
        ({"rounds": 0, "measure": "forward"}, "`rounds` must be at least 1; found 0"),
    ],
)
def test_wrong_options_raise(small, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        benchmark(str(tmp_path / "out"), **{**small, **options})


def test_a_gpu_that_is_not_there_raises(small, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no GPU here; take 'cuda' out of `devices`"):
        benchmark(str(tmp_path / "out"), devices="cuda", **small)


def test_the_given_text_encoder_is_used(make_setup):
    assert make_setup().networks()[GUIDED].text_encoder.channels == 16
