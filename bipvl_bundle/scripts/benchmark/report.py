"""The output files of a benchmark: a JSON line per measurement, and Markdown tables."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import monai
import torch
import transformers

from scripts.benchmark.setup import GUIDED, PLAIN, Setup
from scripts.benchmark.timing import Spread
from scripts.messages.tables import markdown

GOALS: Mapping[str, Mapping[str, float]] = {
    "cpu": {"forward": 1.20, "training step": 1.35, "whole case": 1.20, "memory, training step": 1.25},
    "cuda": {"forward": 1.10, "training step": 1.20, "whole case": 1.15, "memory, training step": 1.25},
}
"""Ratios to the plain backbone not to be passed, by a BERT-base and the sizes that are the defaults of ``Setup``."""
SHARES: Mapping[str, float] = {"case after the network": 0.15, "loading, of an epoch": 0.05}
COMPARED = ("task", "setting", "classes", PLAIN, GUIDED, "ratio", "quartiles", "ratio, wall", "goal")
COUNTED = ("what", "setting", "classes", "value", "quartiles", "goal")


@dataclass
class Report:
    """Writes the results of one benchmark into a folder.

    Args:
        folder: receives measurements.jsonl, a line for each figure as soon as it is there, and benchmark.md.
        machine: in words.

    Raises:
        FileExistsError: the folder holds measurements already.
    """

    folder: Path
    machine: str
    compared: list[dict[str, str]] = field(default_factory=list)
    counted: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.folder / "measurements.jsonl").exists():
            raise FileExistsError(f"'{self.folder}' holds measurements already; choose another `output_dir`.")
        self.folder.mkdir(parents=True, exist_ok=True)

    def record(self, setup: Setup, **values: Any) -> None:
        """Append one measurement to measurements.jsonl."""
        with (self.folder / "measurements.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({**values, "setup": asdict(setup)}) + "\n")

    def compare(
        self, setup: Setup, task: str, values: Mapping[str, str], ratio: Spread, wall: Spread | None = None
    ) -> None:
        """Add a table row that compares one task of both networks."""
        goal = GOALS.get(torch.device(setup.device).type, {}).get(task) if _goals_are_for(setup) else None
        row = {
            "task": task,
            "setting": setup.setting,
            "classes": str(setup.classes),
            **values,
            "ratio": f"{ratio.median:.2f}",
            "quartiles": f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio.low < ratio.high else "",
            "ratio, wall": f"{wall.median:.2f}" if wall else "",
            "goal": _verdict(ratio.median, goal, "{:.2f}"),
        }
        self.compared.append(row)
        print(" | ".join(f"{key} {value}" for key, value in row.items() if value), flush=True)

    def count(self, setup: Setup, what: str, value: Spread, form: str) -> None:
        """Add a table row with one number."""
        row = {
            "what": what,
            "setting": setup.setting,
            "classes": str(setup.classes),
            "value": form.format(value.median),
            "quartiles": f"{form.format(value.low)} to {form.format(value.high)}" if value.low < value.high else "",
            "goal": _verdict(value.median, SHARES.get(what), "{:.0%}"),
        }
        self.counted.append(row)
        print(" | ".join(f"{key} {value}" for key, value in row.items() if value), flush=True)

    def write(self) -> Path:
        """Write the tables to benchmark.md and return its path."""
        parts = [self.machine, ""]
        for columns, rows in ((COMPARED, self.compared), (COUNTED, self.counted)):
            parts += [*markdown(columns, ([row[column] for column in columns] for row in rows)), ""] if rows else []
        path = self.folder / "benchmark.md"
        path.write_text("\n".join(parts), encoding="utf-8")
        return path


def describe_machine(threads: int) -> str:
    """Return a text with processor, memory, GPUs and library versions of this machine."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    words = [
        f"{_processor()}, {os.cpu_count()} cores, {threads or torch.get_num_threads()} threads used",
        *(f"{gpu} (GPU)" for gpu in gpus),
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}",
        f"MONAI {monai.__version__}, transformers {transformers.__version__}",
    ]
    return "; ".join(words) + "."


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _goals_are_for(setup: Setup) -> bool:
    sizes = replace(setup, text_encoder="", device="cpu", precision="fp32", threads=0, recompute=False)
    return sizes == Setup("")


def _verdict(value: float, goal: float | None, form: str) -> str:
    if goal is None:
        return ""
    return f"{form.format(goal)}, {'met' if value <= goal else 'missed'}"
