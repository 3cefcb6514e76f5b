"""The command `benchmark`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from scripts.benchmark.inputs import write_text_encoder
from scripts.benchmark.report import Report, describe_machine
from scripts.benchmark.run import MEASUREMENTS, Run
from scripts.benchmark.setup import Setup


def benchmark(
    output_dir: str,
    *,
    measure: Sequence[str] | str = MEASUREMENTS,
    classes: Sequence[int] | int = 15,
    devices: Sequence[str] | str = "cpu",
    precisions: Sequence[str] | str = "fp32",
    rounds: int = 5,
    threads: int = 0,
    roi: Sequence[int] | int = 96,
    feature_size: Sequence[int] | int = 48,
    window_size: int = 7,
    depth: int = 2,
    batch: int = 1,
    use_checkpoint: Sequence[bool] | bool = False,
    recompute: bool = False,
    text_encoder: str | None = None,
    stage_layers: Sequence[int] = (6, 2, 2, 2),
) -> None:
    """Measure BiPVL-Seg beside its plain backbone: time, memory, operations.

        python -m scripts.cli benchmark runs/benchmark --threads 2
        python -m scripts.cli benchmark runs/classes --measure "[forward]" --classes "[2,15,60,117]"

    Both networks run in turn in one process, round by round. A ratio is taken within each round, of CPU seconds of all
    threads (on a GPU, of wall-clock seconds), and given as median and quartiles. Weights are random, words and volumes
    synthetic: nothing is downloaded. Each measurement is written to OUTPUT_DIR/measurements.jsonl at once, the tables
    to OUTPUT_DIR/benchmark.md at the end, also if the run is interrupted. All combinations of sizes are measured.

    Args:
        output_dir: a folder without measurements
        measure: any of sizes (parameters, operations), kernels (how many are started), forward (one patch in
            evaluation), step (one training step), case (file to file, two windows), scores (metrics of a case),
            loading (a training patch), memory (peak, in a process of its own)
        classes: numbers of foreground classes
        devices: cpu, cuda
        precisions: fp32, tf32 (NVIDIA GPUs), bf16 (autocast)
        rounds: number of repetitions
        threads: CPU threads; 0 for PyTorch's choice. One thread gives the steadiest ratios on a busy machine.
        roi: edges of a patch, in voxels
        feature_size: widths of Swin UNETR
        window_size: window edge of Swin UNETR, in tokens
        depth: blocks in each stage of Swin UNETR
        batch: patches per batch
        use_checkpoint: activation checkpointing of Swin UNETR's encoder; true, false or both
        recompute: activation checkpointing of the text encoder
        text_encoder: folder of a BERT whose configuration and tokenizer are used; BERT-base by default
        stage_layers: layers of the text encoder's stages; they add up to its layers

    Raises:
        ValueError: an unknown measurement or precision, or an absent device.
        FileExistsError: OUTPUT_DIR holds measurements.
    """
    wanted = _listed(measure)
    if unknown := set(wanted) - set(MEASUREMENTS):
        raise ValueError(f"`measure` takes {', '.join(MEASUREMENTS)}; found {', '.join(sorted(unknown))}.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(text_encoder) if text_encoder else write_text_encoder(Path(scratch) / "text_encoder")
        lists = {
            "device": devices,
            "precision": precisions,
            "roi": roi,
            "feature_size": feature_size,
            "use_checkpoint": use_checkpoint,
            "classes": classes,
        }
        single: dict[str, Any] = {"window_size": window_size, "depth": depth, "batch": batch, "recompute": recompute}
        setups = [
            Setup(
                str(folder.absolute()),
                tuple(stage_layers),
                threads=threads,
                **single,
                **dict(zip(lists, chosen, strict=True)),
            )
            for chosen in product(*map(_listed, lists.values()))
        ]
        report = Report(Path(output_dir), describe_machine(threads))
        print(report.machine, flush=True)
        try:
            for setup in setups:
                Run(setup, report, rounds, Path(scratch)).all(wanted)
        finally:
            print(f"written: {report.write()}", flush=True)


def _listed(value: Any) -> list[Any]:
    """Turn a single value, a sequence, or a text with commas into a list."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",")]
    return [value] if isinstance(value, int) else list(value)
