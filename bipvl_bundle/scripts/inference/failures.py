"""Runs over many cases in which a case that fails is a failure of that case, and no end of the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset

from scripts.configuration.errors import error_text
from scripts.data.cases import Item, case_of, images_of
from scripts.inference.background import BackgroundCompose
from scripts.messages.phrases import some
from scripts.metrics.report import check_output_folder
from scripts.whole_file import read_rows, write_rows

__all__ = ["FAILURES", "SomeCasesFailed", "require_no_failures", "run_cases"]

logger = logging.getLogger(__name__)

FAILURES = "failures.csv"


class SomeCasesFailed(RuntimeError):
    """Error at the end of a run, all cases of which were tried."""


def run_cases(
    evaluator: Any,
    folder: str | Path,
    *,
    keep: Any = None,
    background: BackgroundCompose | None = None,
    last: bool = True,
) -> None:
    """Run an evaluator over all its cases; those that fail are listed in `failures.csv`.

    A single case fails with its own error. Of several processes each goes on with its own cases, and all end with the
    same error.

    Args:
        evaluator: a `monai.engines.Evaluator` on a `DataLoader` over a `Dataset` of items, one a batch.
        folder: of `failures.csv`, with the columns case, file and reason. One of an earlier run is taken away.
        keep: a metric that is told, by its attribute ``goes_on``, to keep the scores of the cases so far.
        background: the evaluator's postprocessing, to be done while it segments the next case.
        last: end with the error; else `require_no_failures` is to be called at the end.

    Raises:
        SomeCasesFailed: at the end, if cases have failed; the message counts them.
        OSError: the folder cannot be written to, said before the first case.
    """
    items = list(evaluator.data_loader.dataset.data)
    check_output_folder(folder)
    path = Path(folder) / FAILURES
    path.unlink(missing_ok=True)
    if not items:
        return
    several = idist.get_world_size() > 1
    if len(items) == 1 and not several:
        evaluator.run()
        return
    if several:
        failures = _of_all(_run_all(evaluator, _own_cases(evaluator, items), keep, background))
    else:
        failures = _run_all(evaluator, items, keep, background)
    places = {case_of(item): place for place, item in enumerate(items)}
    failures.sort(key=lambda row: places[row["case"]])
    if failures and idist.get_rank() == 0:
        write_rows(path, failures)
    if last:
        _require_none(failures, items, path)


def require_no_failures(folder: str | Path, items: Sequence[Item]) -> None:
    """Say where the masks of all cases are, or raise an error if cases are listed in `failures.csv`.

    Raises:
        SomeCasesFailed: they are; the message counts them.
    """
    path = Path(folder) / FAILURES
    _require_none(read_rows(path), items, path)
    print(f"\n{len(items)} of {len(items)} cases have their masks in {folder}", flush=True)


def _require_none(failed: Sequence[Mapping[str, str]], items: Sequence[Item], path: Path) -> None:
    if not failed:
        return
    raise SomeCasesFailed(
        f"{len(failed)} of {len(items)} cases failed: {some(row['case'] for row in failed)}. The first: "
        f"{failed[0]['reason']} All reasons: {path}. The others are done; called again, this does what is missing."
    )


def _own_cases(evaluator: Any, items: Sequence[Item]) -> list[Item]:
    """Return the cases that this one of several processes is given, and let its evaluator run over them alone."""
    own = [items[index] for index in evaluator.data_loader.sampler]
    _set_cases(evaluator, own)
    return own


def _of_all(failures: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Gather the failures of all processes; a case that several were given counts once."""
    gathered = cast("list[list[dict[str, str]]]", idist.all_gather(list(failures)))
    return list({row["case"]: row for rows in gathered for row in rows}.values())


def _run_all(
    evaluator: Any, items: Sequence[Item], keep: Any, background: BackgroundCompose | None
) -> list[dict[str, str]]:
    failures: list[dict[str, str]] = []
    progress = _Progress()
    if background is not None:
        background.begin()
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, progress.count)
    rest = list(items)
    while rest:
        progress.done = 0
        try:
            evaluator.run()
            break
        except Exception as error:  # of whatever kind: it is the case's, and the next one is tried
            if progress.done >= len(rest):
                raise  # all cases are done; what fails is no case
            item = rest[progress.done]
            failures.append(_row(item, error))
            logger.error("Case '%s' failed: %s", failures[-1]["case"], failures[-1]["reason"])
        rest = rest[progress.done + 1 :]
        _set_cases(evaluator, rest)
        if keep is not None:
            keep.goes_on = True
    if not rest and (len(failures) < len(items) or idist.get_world_size() > 1):  # the last one failed: nothing has
        # ended, and other processes wait for the scores of this one
        evaluator.fire_event(Events.EPOCH_COMPLETED)
        evaluator.fire_event(Events.COMPLETED)
    if background is not None:
        by_name = {case_of(item): item for item in items}
        failures += [_row(by_name[case], error) for case, error in background.finish()]
    return failures


class _Progress:
    """Ignite handler that counts the cases that are done."""

    def __init__(self) -> None:
        self.done = 0

    def count(self, engine: Any) -> None:
        self.done += 1


def _row(item: Item, error: Exception) -> dict[str, str]:
    reason = " ".join(error_text(error)[0].split())
    return {"case": case_of(item), "file": str(images_of(item)[0]), "reason": reason}


def _set_cases(evaluator: Any, items: Sequence[Item]) -> None:
    """Let an evaluator that a case has stopped go on with others."""
    old = evaluator.data_loader
    dataset = Dataset(items, old.dataset.transform)
    evaluator.data_loader = DataLoader(dataset, batch_size=old.batch_size, num_workers=old.num_workers)
    evaluator.state.epoch_length = len(evaluator.data_loader) if items else 0
    evaluator._internal_run_generator = None  # the one that the error came out of, which Ignite would ask again
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
