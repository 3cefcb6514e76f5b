"""Measured scores of a released bundle, with the digest of the weights they belong to."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from scripts.experiments.comparison import Scored, Summary, read_scores, summarise
from scripts.trust.parsing import read_mapping
from scripts.trust.plain import require_plain
from scripts.whole_file import digest_of

RECORD = "figures.json"
SCORES = "metrics_per_case.csv"
READING = "reading.md"
METRICS = {"dice": (100.0, "DSC (%)"), "hd95_mm": (1.0, "HD95 (mm)"), "nsd": (100.0, "NSD (%)")}


@dataclass(frozen=True)
class Figures:
    """Scores of released weights.

    Attributes:
        folder: with `metrics_per_case.csv`.
        evaluate_on: "test" or "validation".
        nsd_tolerance: mm.
        weights_sha256: of the file that was scored.
        precision: "float16" or "float32", as the weights are stored.
        settings: of the inference that was scored, where they are no defaults, such as ``mirror_axes``.
    """

    folder: Path
    evaluate_on: str
    nsd_tolerance: float
    weights_sha256: str
    precision: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def summaries(self) -> list[Summary]:
        """Return one summary per class, and last the mean of the classes."""
        return summarise(Scored("release", "release", {(0, 0): read_scores(self.folder / SCORES)}))

    def rows(self) -> list[list[str]]:
        """Return a row of text per summary: class, metrics with standard deviation over cases, missed, cases."""
        return [
            [s.class_name, *(_cell(s, metric) for metric in METRICS), str(s.missed), str(s.cases)]
            for s in self.summaries()
        ]

    def means(self) -> dict[str, float]:
        """Return mean DSC and NSD (0 to 1) and HD95 (mm) without undefined ones."""
        mean = self.summaries()[-1].mean
        return {metric: round(mean[metric], 4) for metric in METRICS if not math.isnan(mean[metric])}

    def reading(self) -> list[str]:
        """Return the lines of the reading test, its verdict first; none where it was not made."""
        file = self.folder / READING
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []

    def record(self) -> None:
        """Write beside the scores which weights and split they belong to."""
        content = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / RECORD).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def read_figures(folder: Path, weights: Path) -> Figures:
    """Read the scores that an earlier release measured with these weights.

    Raises:
        FileNotFoundError: the scores or their record are absent.
        ValueError: they are of other weights.
    """
    absent = [name for name in (RECORD, SCORES) if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"'{folder}' lacks {', '.join(absent)}. Give `dataset_dir` to have the model measured, or a folder that "
            "an earlier release has written them to."
        )
    figures = _read_record(folder)
    if figures.weights_sha256 != digest_of(weights):
        raise ValueError(
            f"The figures in '{folder}' were measured with other weights than those in '{weights}'. Give `dataset_dir` "
            "to have these measured."
        )
    return figures


def _read_record(folder: Path) -> Figures:
    path, known = folder / RECORD, {entry.name: entry.type for entry in fields(Figures)[1:]} | {"settings": "dict"}
    content = read_mapping(path, f"a record of {', '.join(known)}")
    require_plain(content, f"'{path}'")
    if {name: type(value).__name__ for name, value in {"settings": {}, **content}.items()} != known:
        raise ValueError(
            f"'{path}' holds {content}; expected {', '.join(f'{name} ({kind})' for name, kind in known.items())}. Give "
            "`dataset_dir` to have the model measured anew."
        )
    return Figures(folder=folder, **content)


def measure(bundle: Path, weights: Path, folder: Path, *, precision: str, options: Mapping[str, Any]) -> Figures:
    """Score weights with a released bundle's own train.yaml and evaluate.yaml, in a process of its own.

    Args:
        bundle: the released folder.
        weights: the file to score.
        folder: where the scores go.
        precision: of the file.
        options: of `evaluating`: `dataset_dir`, `evaluate_on`, `nsd_tolerance`, and what the split needs.

    Raises:
        RuntimeError: the evaluation failed; the end of what it said is in the message.
    """
    _run("evaluating", "evaluate.yaml", bundle, weights, folder, {**options, "metrics_dir": str(folder)})
    return Figures(folder, options["evaluate_on"], options["nsd_tolerance"], digest_of(weights), precision)


def measure_reading(bundle: Path, weights: Path, folder: Path, *, options: Mapping[str, Any]) -> None:
    """Write `reading.md` and `reading.csv` to a folder, with a released bundle's own train.yaml and reading.yaml.

    Args:
        bundle: the released folder.
        weights: the file to test.
        folder: where the report goes.
        options: as for `measure`.

    Raises:
        RuntimeError: the test failed; the end of what it said is in the message.
    """
    options = {name: value for name, value in options.items() if name != "nsd_tolerance"}
    _run("reading", "reading.yaml", bundle, weights, folder, {**options, "reading_dir": str(folder)})


def _run(run_id: str, overlay: str, bundle: Path, weights: Path, folder: Path, options: Mapping[str, Any]) -> None:
    places = {"bundle_root": bundle, "ckpt_path": weights, "output_dir": folder}
    arguments = {
        **options,
        **{name: str(path) for name, path in places.items()},
        "config_file": [str(bundle / "configs" / name) for name in ("train.yaml", overlay)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "arguments.json"
    file.write_text(json.dumps(arguments), encoding="utf-8")
    command = [sys.executable, "-B", "-m", "monai.bundle", "run", run_id, "--args_file", str(file)]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"The released bundle failed at `{run_id}`:\n{(done.stdout + done.stderr)[-3000:]}")


def _cell(summary: Summary, metric: str) -> str:
    scale, _ = METRICS[metric]
    mean, deviation = summary.mean[metric] * scale, summary.sd_cases[metric] * scale
    if math.isnan(mean):
        return "-"
    return f"{mean:.1f}" if math.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f}"
