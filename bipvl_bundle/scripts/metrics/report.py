"""Reports of the scores of all cases: CSV files, a text table, and numbers to log."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scripts.messages.tables import aligned
from scripts.metrics.scores import ClassScore
from scripts.whole_file import write_rows

METRICS = ("dice", "hd95_mm", "nsd")
COUNTS = ("missed", "spurious", "absent", "cases")
TABLE = {"dice_mean": "DSC", "hd95_mm_mean": "HD95 mm", "nsd_mean": "NSD"}
TABLE |= {count: count for count in ("missed", "spurious", "cases")}
MEAN_ROW = "mean"

Row = Mapping[str, "str | int | float | bool"]


class MetricsReport:
    """Scores of M cases by N classes, summarised without dropping missed classes.

    A class's `cases` are those that hold it in the reference or in the prediction; `missed` and `spurious`
    are among them and count into DSC and NSD with 0. HD95 is over the others: read it beside `missed`.
    The mean row is the mean of each column over the classes that have a value, and the sum of each count.

    Args:
        class_names: N names, in the order of the scores.
        cases: pairs of an identifier (a file name will do) and that case's N scores. Two cases may share an
            identifier.

    Raises:
        ValueError: a case has not N scores.
    """

    def __init__(self, class_names: Sequence[str], cases: Iterable[tuple[str, Sequence[ClassScore]]]) -> None:
        cases = list(cases)
        self.class_names = list(class_names)
        names = short_names([case for case, _ in cases])
        self.cases = sorted(zip(names, (scores for _, scores in cases), strict=True), key=lambda case: case[0])
        for case, scores in self.cases:
            if len(scores) != len(self.class_names):
                raise ValueError(
                    f"Case '{case}' has {len(scores)} scores for the {len(self.class_names)} classes "
                    f"{self.class_names}; give one score a class."
                )

    def per_case(self) -> list[Row]:
        """Return one row per case and class: the content of `metrics_per_case.csv`."""
        return [
            {
                "case": case,
                "class": name,
                **{metric: getattr(score, metric) for metric in METRICS},
                "missed": score.missed,
                "spurious": score.spurious,
                "voxels_reference": score.voxels_reference,
                "voxels_prediction": score.voxels_prediction,
            }
            for case, scores in self.cases
            for name, score in zip(self.class_names, scores, strict=True)
        ]

    def summary(self) -> list[Row]:
        """Return one row per class and the mean row: the content of `metrics_summary.csv`.

        The standard deviation is that of a sample (n - 1), NaN for fewer than two values. The mean row holds the
        means of the rows of the classes, of their standard deviations too, and the sums of their counts.
        """
        rows = [self._summarise(name, index) for index, name in enumerate(self.class_names)]
        mean: dict[str, str | int | float | bool] = {"class": MEAN_ROW}
        for key in (key for key in rows[0] if key != "class"):
            values = [float(row[key]) for row in rows]
            mean[key] = int(sum(values)) if key in COUNTS else mean_over_classes(values)
        return [*rows, mean]

    def _summarise(self, name: str, index: int) -> Row:
        scores = [scores[index] for _, scores in self.cases]
        row: dict[str, str | int | float | bool] = {"class": name}
        for metric in METRICS:
            values = _numbers(getattr(score, metric) for score in scores)
            row[f"{metric}_mean"] = _mean(values)
            row[f"{metric}_sd"] = statistics.stdev(values) if len(values) > 1 else math.nan
            row[f"{metric}_median"] = statistics.median(values) if values else math.nan
        row |= {count: sum(getattr(score, count) for score in scores) for count in COUNTS[:-1]}
        return row | {"cases": sum(not score.absent for score in scores)}

    def scalars(self, metrics: Sequence[str] = METRICS) -> dict[str, float]:
        """Return means and counts under flat names for a log: `mean_dice`, `missed`, `dice_<class>`, ..."""
        *classes, mean = self.summary()
        flat = {f"mean_{metric}": mean[f"{metric}_mean"] for metric in metrics}
        flat |= {count: mean[count] for count in ("missed", "spurious")}
        for row in classes:
            flat |= {f"{metric}_{row['class']}": row[f"{metric}_mean"] for metric in metrics}
        return {key: float(value) for key, value in flat.items()}

    def table(self) -> str:
        """Return the summary as lines of text, with a dash where there is no value."""
        lines = [["class", *TABLE.values()]]
        lines += [[str(row["class"]), *(_cell(row[key]) for key in TABLE)] for row in self.summary()]
        text = aligned(lines)
        rule = "-" * len(text[0])
        return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])

    def write(self, folder: str | Path) -> list[Path]:
        """Write `metrics_per_case.csv` and `metrics_summary.csv`, each whole or not at all.

        Raises:
            OSError: the folder is missing and cannot be made, is not writable, or is full.
        """
        folder = Path(folder)
        check_output_folder(folder)
        paths = [folder / "metrics_per_case.csv", folder / "metrics_summary.csv"]
        for path, rows in zip(paths, (self.per_case(), self.summary()), strict=True):
            _write_csv(path, rows)
        return paths


def mean_over_classes(values: Iterable[float]) -> float:
    """Return the mean that stands for an experiment: over the classes that have a value, each the mean over its cases.

    So each class counts alike, in however many cases it is; the mean over the means of the cases would differ.
    """
    return _mean(_numbers(values))


def short_names(names: Sequence[str]) -> list[str]:
    """Return file names without folder and suffix, with the folders below the common one if they clash."""
    distinct = sorted(set(names))
    stems = {name: _stem(Path(name).name) for name in distinct}
    if len(set(stems.values())) < len(distinct):
        parts = [Path(name).parts for name in distinct]
        shared = next((i for i, level in enumerate(zip(*parts, strict=False)) if len(set(level)) > 1), 0)
        stems = {name: _stem("/".join(Path(name).parts[shared:])) for name in distinct}
    return [stems[name] for name in names]


def check_output_folder(folder: str | Path) -> None:
    """Create the folder and write to it once, to fail before hours of work.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    probe = Path(folder) / ".writable"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text("probe")
        probe.unlink(missing_ok=True)  # another process may have probed too
    except OSError as error:
        raise OSError(
            f"Cannot write to the output folder '{folder}': {error.strerror}. Free space there, change its "
            "permissions, or choose another output_dir, ckpt_dir, predictions_dir or metrics_dir."
        ) from error


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    try:
        write_rows(path, [{key: _exact(value) for key, value in row.items()} for row in rows])
    except OSError as error:
        raise OSError(
            f"Cannot write '{path}': {error.strerror}. Free space there, change its permissions, or choose "
            "another output_dir."
        ) from error


def _stem(name: str) -> str:
    for suffix in (".nii.gz", ".nii", ".mha", ".nrrd", ".mgz", ".npz", ".npy"):
        name = name.removesuffix(suffix)
    return name


def _numbers(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _exact(value: str | int | float | bool) -> str | int | bool:
    return f"{value:.6f}" if isinstance(value, float) else value


def _cell(value: str | int | float | bool) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4f}"
    return str(value)
