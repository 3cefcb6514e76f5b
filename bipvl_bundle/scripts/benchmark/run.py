"""All measurements of one benchmark setup."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn
from tqdm import tqdm

from scripts.benchmark import memory, tasks, timing
from scripts.benchmark.inputs import write_case
from scripts.benchmark.kernels import count_kernels
from scripts.benchmark.report import Report
from scripts.benchmark.setup import GUIDED, PLAIN, Setup
from scripts.benchmark.timing import Sample, Spread, Stopwatch, Task
from scripts.networks.operations import count_operations
from scripts.networks.weights import count_parameters

MEASUREMENTS = ("sizes", "kernels", "forward", "step", "case", "scores", "loading", "memory")


class Run:
    """Takes the measurements of one setup, one after the other.

    Args:
        setup: what is compared.
        report: receives the figures.
        rounds: of each measurement.
        scratch: a folder for volumes.
    """

    def __init__(self, setup: Setup, report: Report, rounds: int, scratch: Path) -> None:
        self.setup, self.report, self.rounds, self.scratch = setup, report, rounds, scratch
        self.kind = "wall" if setup.device.startswith("cuda") else "cpu"

    def all(self, wanted: Sequence[str]) -> None:
        """Take the requested measurements."""
        self.setup.prepare()
        if "memory" in wanted:  # first, when this process holds little itself
            self.memory()
        if set(wanted) - {"memory"}:
            networks = self.setup.networks()
            for name in (name for name in MEASUREMENTS[:-1] if name in wanted):
                getattr(self, name)(networks)

    def sizes(self, networks: dict[str, nn.Module]) -> None:
        """Count parameters, and operations of a forward."""
        image, _ = self.setup.patch()
        for what, count, unit in (
            ("parameters", lambda network: count_parameters(dict(network.named_parameters())), 1e6),
            ("operations, forward", lambda network: count_operations(network, image), 1e9),
        ):
            values = {name: count(network) for name, network in networks.items()}
            self.report.record(self.setup, task=what, values=values)
            shown = {name: f"{value / unit:.1f} {'M' if unit == 1e6 else 'G'}" for name, value in values.items()}
            self.report.compare(self.setup, what, shown, Spread.of([values[GUIDED] / values[PLAIN]]))

    def kernels(self, networks: dict[str, nn.Module]) -> None:
        """Count the kernels that a forward and a training step start, and how often the host waits in them."""
        for task, make in (("forward", tasks.forward), ("training step", tasks.training_step)):
            counts = {}
            for name, network in networks.items():
                run = make(self.setup, network)
                run(Stopwatch())  # what is kept from one patch to the next is there then
                counts[name] = count_kernels(run)
            self.report.record(self.setup, task=f"kernels, {task}", values={k: c._asdict() for k, c in counts.items()})
            shown = {name: f"{count.started}, {count.waited_for} waited for" for name, count in counts.items()}
            ratio = Spread.of([counts[GUIDED].started / counts[PLAIN].started])
            self.report.compare(self.setup, f"kernels, {task}", shown, ratio)

    def forward(self, networks: dict[str, nn.Module]) -> None:
        """Time one batch in evaluation."""
        self._compare("forward", {name: tasks.forward(self.setup, network) for name, network in networks.items()})

    def step(self, networks: dict[str, nn.Module]) -> list[Sample]:
        """Time one training step."""
        steps = {name: tasks.training_step(self.setup, network) for name, network in networks.items()}
        return self._compare("training step", steps)

    def case(self, networks: dict[str, nn.Module]) -> None:
        """Time a case of two windows from file to file, and the share of what follows the network."""
        edge = self.setup.roi
        item = write_case(self.scratch / f"case_{self.setup.classes}", (edge * 3 // 2, edge, edge), self.setup.classes)
        cases = {
            name: tasks.whole_case(self.setup, network, item["image"], self.scratch / name)
            for name, network in networks.items()
        }
        samples = self._compare("whole case", cases, warmup=0)
        after = timing.share(samples, GUIDED, tasks.AFTER, kind=self.kind)
        self.report.count(self.setup, "case after the network", after, "{:.2%}")
        for part in samples[0].parts:
            if part != timing.TOTAL:
                took = timing.seconds(samples, GUIDED, part=part, kind=self.kind)
                self.report.count(self.setup, f"case: {part}", took, "{:.3f} s")

    def scores(self, networks: dict[str, nn.Module]) -> None:
        """Time the metrics of one case."""
        edge = self.setup.roi
        task = tasks.scoring(self.setup, (edge * 5 // 2, edge * 2, edge * 3 // 2))
        samples = self._sample("scores of a case", {"scores": task})
        self.report.count(self.setup, "scores of a case", timing.seconds(samples, "scores", kind=self.kind), "{:.2f} s")

    def loading(self, networks: dict[str, nn.Module]) -> None:
        """Time the loading of one training patch from a cached case, beside a training step."""
        edge = self.setup.roi
        voxels = (edge * 5 // 2, edge * 2, edge * 3 // 2)
        item = write_case(self.scratch / f"training_{self.setup.classes}", voxels, self.setup.classes)
        both = {
            "loading": tasks.loading(self.setup, item),
            "training step": tasks.training_step(self.setup, networks[GUIDED]),
        }
        samples = self._sample("loading", both)
        load, step = (timing.seconds(samples, name, kind="wall").median for name in both)
        self.report.count(
            self.setup, "loading of a patch", timing.seconds(samples, "loading", kind=self.kind), "{:.3f} s"
        )
        self.report.count(self.setup, "loading, of an epoch", Spread.of([load / (load + step)]), "{:.1%}")

    def memory(self) -> None:
        """Measure the peak memory of a forward and of a training step."""
        for task in memory.TASKS:
            peaks = {name: memory.peak_memory(self.setup, name, task) for name in (PLAIN, GUIDED)}
            self.report.record(self.setup, task=f"memory, {task}", values=peaks)
            shown = {name: f"{peak / 2**30:.2f} GiB" for name, peak in peaks.items()}
            self.report.compare(self.setup, f"memory, {task}", shown, Spread.of([peaks[GUIDED] / peaks[PLAIN]]))

    def _compare(self, title: str, both: dict[str, Task], warmup: int = 1) -> list[Sample]:
        samples = self._sample(title, both, warmup)
        shown = {name: f"{timing.seconds(samples, name, kind=self.kind).median:.3g} s" for name in both}
        ratios = [timing.ratio(samples, GUIDED, PLAIN, kind=kind) for kind in (self.kind, "wall")]
        self.report.compare(self.setup, title, shown, *ratios)
        return samples

    def _sample(self, title: str, run: dict[str, Task], warmup: int = 1) -> list[Sample]:
        """Time tasks in turn with a progress bar, and record each sample."""
        samples = []
        turns = timing.alternate(run, self.rounds, warmup=warmup, watch=lambda: Stopwatch(self.setup.device))
        for sample in tqdm(turns, total=self.rounds * len(run), desc=f"{title}, {self.setup.classes} classes"):
            parts = {part: times._asdict() for part, times in sample.parts.items()}
            self.report.record(self.setup, task=title, name=sample.name, round=sample.round, parts=parts)
            samples.append(sample)
        return samples
