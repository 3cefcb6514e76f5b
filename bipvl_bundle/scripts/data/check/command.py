"""The command `check_data`: opens every file of a data set and compares it with the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.transforms import CropForegroundd, ScaleIntensityRanged
from monai.utils import ensure_tuple
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from scripts.configuration.check import check_config
from scripts.data.cases import Item, identities
from scripts.data.check.case import CaseCheck, CaseReport, Intensity
from scripts.data.check.report import (
    Finding,
    Settings,
    cache_bytes,
    case_table,
    class_table,
    csv_rows,
    find_faults,
    problem_lines,
)
from scripts.data.datalist import check_datalist_labels, datalist_sections, load_datalist
from scripts.data.label_names import names_in_files
from scripts.data.memory import machine_memory
from scripts.data.splits import require_fold, split_folds
from scripts.data.transforms import CheckCased
from scripts.messages.phrases import byte_size, root_cause, some
from scripts.metrics.report import check_output_folder
from scripts.whole_file import write_rows
from scripts.words.checks import read_yaml

SECTIONS = ("training", "test")

Job = tuple[Item, str, int | None]


def check_data(
    config_file: str | Sequence[str],
    meta_file: str | None = None,
    *,
    output: str | None = None,
    overwrite: bool = False,
    workers: int = 2,
    max_rows: int = 60,
    progress: bool = True,
    **overrides: Any,
) -> None:
    """Check every file of a data set against its configuration and print yes or no, with the reasons.

    Checks shapes, affines, spacing, label values, voxels per class, NaN, values against the intensity window, the
    folds, and the memory for the cache. A bad case is a row of the table. With a "no" the exit status is 1.

    Args:
        config_file: train.yaml and the overlays of the training, as for `check`.
        meta_file: as for `check`.
        output: a CSV file to write, one row per case, with the voxels of every class.
        overwrite: replace `output` if it exists.
        workers: number of reading processes; 0 reads in this one.
        max_rows: number of cases to print, bad ones first if there are more.
        progress: show a progress bar.
        overrides: options as for `monai.bundle run`.

    Raises:
        ValueError: the configuration has problems or is not that of a training, or the datalist or its folds are
            malformed.
        FileNotFoundError: a config file, the datalist or the concept table is absent.
        OSError: `output` exists, or its folder cannot be written.
    """
    if output:
        _check_output(Path(output), overwrite)
    problems = check_config(config_file, meta_file, **overrides)
    if problems:
        raise ValueError("The configuration has problems, and no file was opened:\n" + "\n".join(problems))
    parser = ConfigParser()
    parser.read_config([str(path) for path in ensure_tuple(config_file)])
    parser.update(overrides)
    words = _unfinished_words(parser)
    check = _case_check(parser)
    jobs, settings = _plan(parser)
    reports = list(tqdm(_reports(jobs, check, workers), "Checking", len(jobs), unit="case", disable=not progress))
    if output:
        write_rows(Path(output), csv_rows(reports, settings.class_names))
    findings = [*words, *_label_names(parser), *_shared_cases(jobs), *find_faults(reports, settings)]
    _print_all(reports, settings, findings, max_rows)
    if any(finding.fatal for finding in findings):
        raise SystemExit(1)


def _check_output(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileExistsError(f"'{path}' is there already; take another name, or give --overwrite.")
    check_output_folder(path.absolute().parent)


class _Cases(Dataset[CaseReport]):
    """Data set whose items are the reports of cases, made on access in any process."""

    def __init__(self, jobs: Sequence[Job], check: CaseCheck) -> None:
        self.jobs = jobs
        self.check = check

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> CaseReport:
        return self.check(*self.jobs[index])


def _reports(jobs: Sequence[Job], check: CaseCheck, workers: int) -> Iterator[CaseReport]:
    loader = DataLoader(_Cases(jobs, check), batch_size=None, num_workers=workers, collate_fn=_unchanged)
    try:
        yield from loader
    except RuntimeError as error:  # a process that was killed takes the name of its case with it
        raise RuntimeError(
            f"A reading process ended before its time ({error}). The machine may be out of memory; run again with "
            "--workers 0, which reads one case at a time."
        ) from error


def _unchanged(report: Any) -> Any:
    return report


def _unfinished_words(parser: ConfigParser) -> list[Finding]:
    """Return the problem of an unusable concept table, whose class names are then put in its place."""
    try:
        parser.get_parsed_content("class_names")
        return []
    except Exception as error:  # monai wraps whatever the table raises
        reason = root_cause(error)
        if not isinstance(reason, ValueError):
            raise reason from error
        content = read_yaml(Path(parser.get_parsed_content("concepts_file")))
        try:
            names = [str(entry["name"]) for entry in content["classes"]]
        except (KeyError, TypeError):
            raise reason from error
    parser.update({"class_names": names})
    return [Finding(True, str(reason))]


def _label_names(parser: ConfigParser) -> list[Finding]:
    """Return the problem if the datalist names the labels differently from the concept table."""
    names, softmax, transforms = (
        parser.get_parsed_content(key) for key in ("class_names", "softmax", "label_transforms")
    )
    names = names_in_files(names, softmax=softmax, label_transforms=transforms)
    try:
        check_datalist_labels(parser.get_parsed_content("dataset_dir"), names) if names else None
    except ValueError as error:
        return [Finding(True, str(error))]
    return []


def _case_check(parser: ConfigParser) -> CaseCheck:
    transforms = parser.get_parsed_content("preprocessing_transforms")
    position = next((i for i, t in enumerate(transforms) if isinstance(t, CheckCased)), None)
    if position is None:
        raise ValueError(
            "preprocessing_transforms hold no scripts.data.transforms.CheckCased; put it after the loading."
        )
    scalers = [t.scaler for t in transforms[position:] if isinstance(t, ScaleIntensityRanged)]
    crop = any(isinstance(t, CropForegroundd) for t in transforms[position:])
    return CaseCheck(
        load=transforms[:position],
        check=transforms[position].problems,
        spacing=parser.get_parsed_content("spacing"),
        num_classes=len(parser.get_parsed_content("class_names")),
        softmax=parser.get_parsed_content("softmax"),
        intensity=Intensity((scalers[0].a_min, scalers[0].a_max) if scalers else None, crop),
    )


def _plan(parser: ConfigParser) -> tuple[list[Job], Settings]:
    """Return every case with its section and held-out fold, and the settings of the configuration."""
    if "num_folds" not in parser:
        raise ValueError(
            "There is no 'num_folds': the first config file must be train.yaml, whose data is to be checked."
        )
    parser.get_parsed_content("prepare_data")  # as a training would
    folder, fold, count, seed = (parser.get_parsed_content(k) for k in ("dataset_dir", "fold", "num_folds", "seed"))
    items = load_datalist(folder, "training", must_exist=False)
    require_fold(fold, count)
    held_out = [{item["case"] for item in part} for part in split_folds(items, count, seed)]
    fold_of = {case: number for number, part in enumerate(held_out) for case in part}
    jobs: list[Job] = [(item, "training", fold_of.get(item["case"])) for item in items]
    if "test" in datalist_sections(folder):
        jobs += [(item, "test", None) for item in load_datalist(folder, "test", None, must_exist=False)]
    cases = {item["case"] for item in items}
    return jobs, Settings(
        class_names=parser.get_parsed_content("class_names"),
        spacing=parser.get_parsed_content("spacing"),
        roi_size=parser.get_parsed_content("roi_size"),
        cache_rate=parser.get_parsed_content("cache_rate"),
        training_parts=[frozenset(cases - part) for part in held_out],
        fold=fold,
        memory=machine_memory(),
    )


def _shared_cases(jobs: Sequence[Job]) -> list[Finding]:
    """Yield the images and patients that are in both the training and the test section."""
    training, test = (set().union(*(identities(i) for i, s, _ in jobs if s == section)) for section in SECTIONS)
    shared = sorted(training & test)
    return [Finding(True, f"in the training and in the test section alike: {some(shared, 3)}")] if shared else []


def _print_all(reports: Sequence[CaseReport], settings: Settings, findings: Sequence[Finding], max_rows: int) -> None:
    for block in (case_table(reports, max_rows), class_table(reports, settings), problem_lines(reports, max_rows)):
        print("\n".join([*block, ""]) if block else "", end="\n" if block else "")
    total = sum(report.section == "training" for report in reports)
    sizes = [total - len(part) for part in settings.training_parts]
    print(f"held out by fold: {', '.join(map(str, sizes))} of {total} cases; test cases: {len(reports) - total}")
    memory = f" of this machine's {byte_size(settings.memory)}" if settings.memory else ""
    cache = byte_size(cache_bytes(reports, settings.cache_rate))
    print(f"cache_rate {settings.cache_rate:g}: up to {cache}{memory}")
    for finding in findings:
        print(f"{'error' if finding.fatal else 'warning'}: {finding.text}")
    errors = sum(finding.fatal for finding in findings)
    warnings = len(findings) - errors
    print(f"\n{'no' if errors else 'yes'}: {errors} error(s), {warnings} warning(s)")
