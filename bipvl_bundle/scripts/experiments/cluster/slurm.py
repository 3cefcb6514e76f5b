"""Submits a set of experiments to Slurm, by submitit: one job a run, and the comparison after them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.experiments.cluster.jobs import CompareJob, RunJob
from scripts.experiments.cluster.limits import Limits
from scripts.experiments.description import BUNDLE_ROOT
from scripts.experiments.plan import Run
from scripts.experiments.records import write_json
from scripts.experiments.runner import SKIP, Runner

FOLDER = "slurm"
"""Below the output of a set: scripts, logs and results of its jobs, by submitit, and ``SUBMITTED``."""
SUBMITTED = "submitted.json"
COMPARE = Limits(minutes=120, cpus=2, gpus=0)


@dataclass(frozen=True)
class Batch:
    """Runs that are submitted as one array; those of a later batch need models of an earlier one."""

    runs: Sequence[Run]
    states: Sequence[str]


def submit(runner: Runner, limits: Limits, chosen: Sequence[str], *, dry_run: bool = False) -> list[str]:
    """Submit what a set lacks; return the numbers of the jobs, the comparison's last; none if nothing is to be run.

    Args:
        runner: of the set, checked.
        limits: of each run.
        chosen: names of the experiments, for the comparison.
        dry_run: only print what would be submitted.

    Raises:
        ModuleNotFoundError: submitit is absent.
        RuntimeError: there is no Slurm here, or jobs of this set are still queued.
    """
    batches = plan_batches(runner)
    for line in _lines(batches, runner, limits):
        runner.print_line(line)
    if dry_run or not batches:
        return []
    folder = runner.described.output / FOLDER
    make = executor_maker(folder, limits)
    require_no_jobs(folder)
    runner.prepare()
    folder.mkdir(parents=True, exist_ok=True)
    described = replace(runner.described, jobs=1, threads=limits.cpus)
    ids: list[str] = []
    for batch in batches:
        executor = make(limits, f"{described.output.name}", after=ids)
        with executor.batch():
            jobs = [executor.submit(RunJob.of(described, run, folder)) for run in batch.runs]
        for job, run in zip(jobs, batch.runs, strict=True):
            runner.print_line(f"  job {job.job_id}: {run}")
        ids = [*ids, *dict.fromkeys(job.job_id.split("_")[0] for job in jobs)]
    least = replace(COMPARE, partition=limits.partition, account=limits.account, qos=limits.qos)
    compare = make(least, f"{described.output.name}_comparison", after=ids)
    ids.append(compare.submit(CompareJob(described, list(chosen), folder, runner.skipped)).job_id)
    write_json(folder / SUBMITTED, ids)
    runner.print_line(
        f"  job {ids[-1]}: comparison, after them. Logs: {folder}; squeue shows the jobs, scancel ends one."
    )
    return ids


def plan_batches(runner: Runner) -> list[Batch]:
    """Return the runs to submit: those that train, then those that evaluate their models; the rest is in `skipped`."""
    batches = []
    for trains in (True, False):
        states = [(run, runner.state(run)) for run in runner.runs if (run.experiment.evaluates is None) == trains]
        runner.skipped |= {str(run): text.removeprefix(SKIP) for run, text in states if text.startswith(SKIP)}
        open_ = [(run, text) for run, text in states if text != "complete" and not text.startswith(SKIP)]
        batches += [Batch([run for run, _ in open_], [text for _, text in open_])] if open_ else []
    return batches


def executor_maker(folder: Path, limits: Limits) -> Callable[..., Any]:
    """Return a function that makes submitit's executor for some limits, a name, and the jobs to come after.

    Raises:
        ModuleNotFoundError: submitit is absent.
        RuntimeError: there is no Slurm here.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "`--cluster slurm` submits by submitit, which is not installed: pip install submitit==1.5.4"
        ) from error
    absent = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if absent:
        raise RuntimeError(
            f"There is no {', '.join(absent)} on this machine: call `--cluster slurm` on a login node of the cluster, "
            "or leave it out to run here. `--dry_run` prints what would be submitted."
        )

    def make(wanted: Limits, name: str, after: Sequence[str] = ()) -> Any:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=limits.requeues)
        executor.update_parameters(
            **wanted.parameters(),
            job_name=name,
            dependency=f"afterany:{':'.join(after)}" if after else None,
            additional_parameters={"requeue": True},
            setup=[f"export PYTHONPATH={shlex.quote(str(BUNDLE_ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"],
        )
        return executor

    return make


def require_no_jobs(folder: Path) -> None:
    """Raise an error if jobs of an earlier call are still queued: two would work in one folder.

    Raises:
        RuntimeError: they are.
    """
    path = folder / SUBMITTED
    if not path.is_file():
        return
    ids = json.loads(path.read_text(encoding="utf-8"))
    command = ["squeue", "--noheader", "--format", "%A", "--jobs", ",".join(ids)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    queued = sorted(set(done.stdout.split()))  # of jobs that are over long since squeue says that they are invalid
    if queued:
        raise RuntimeError(
            f"Jobs of this set are still queued: {', '.join(queued)}. Wait for them, or end them: scancel "
            f"{' '.join(queued)}. Then call this again: it submits what is missing."
        )


def _lines(batches: Sequence[Batch], runner: Runner, limits: Limits) -> list[str]:
    lines = [f"{run}: skipped. {reason}" for run, reason in runner.skipped.items()]
    if not batches:
        return [*lines, "Nothing to submit: every run is complete."]
    for number, batch in enumerate(batches, start=1):
        after = f", after {number - 1}" if number > 1 else ""
        several = f" of {len(batch.runs)}, at most {limits.parallel} at a time" if len(batch.runs) > 1 else ""
        lines.append(f"{number}. {'array' if several else 'job'}{several}{after}: {limits}")
        lines += [f"   {run}: {state}" for run, state in zip(batch.runs, batch.states, strict=True)]
    return [*lines, f"{len(batches) + 1}. comparison, after {'all' if len(batches) > 1 else '1'}: {COMPARE}"]
