"""The command `experiments`: runs a set of experiments and compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.experiments.cluster.limits import read_limits
from scripts.experiments.cluster.slurm import submit
from scripts.experiments.compare import comparison_of, write_comparison
from scripts.experiments.description import ExperimentSet, load_set
from scripts.experiments.runner import Runner

CLUSTERS = ("slurm",)


def run_experiments(
    file: str | None = None,
    *,
    experiments: Mapping[str, Any] | None = None,
    output: str | None = None,
    base: Sequence[str] | None = None,
    folds: Sequence[int] | int | None = None,
    seeds: Sequence[int] | int | None = None,
    evaluate_on: str | None = None,
    evaluation: Mapping[str, Any] | None = None,
    reference: str | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    only: Sequence[str] | str | None = None,
    dry_run: bool = False,
    cluster: str | None = None,
    limits: str | None = None,
    **options: Any,
) -> None:
    """Run experiments x folds x seeds, then print and write their comparison.

        python -m scripts.cli experiments configs/experiments/table3_phantom.yaml --jobs 2

    Each run is a process of its own in OUTPUT/EXPERIMENT/foldN_seedN, with its model, log, scores, settings
    (configuration.json, arguments.json) and, once complete, run.json. Called again, the command skips complete
    runs and resumes stopped ones. If a run fails, the others continue. A folder of another configuration is an
    error and left as it is. Config files are names within the bundle's configs, or paths relative to the current
    folder. The exit status is 1 if a run has failed, 130 after Ctrl-C or SIGTERM.

    Args:
        file: YAML with any of the following arguments; those on the command line win
        experiments: {name: [overlay, ...]}, or {name: {title, overlays, options}}; {name: {evaluates: other,
            overlays, options}} scores the other's models under its own overlays and options; {name: {nnunet:
            {epochs: 4, mirror: false}}} is nnU-Net itself, as by the command `nnunet`
        output: folder of the set
        base: config files below all overlays; train.yaml by default
        folds: folds to hold out, such as [0,1,2]
        seeds: seeds such as [0,1]; a seed also splits the cases into folds
        evaluate_on: validation (the fold held out) or test
        evaluation: options of the evaluation alone, such as {nsd_tolerance: 1.0}
        reference: the experiment that the others are tested against
        jobs: number of runs at a time
        threads: threads of each run; by default the cores are shared among the jobs
        only: names of the experiments to run this time; those of earlier calls stay in the comparison
        dry_run: check everything that needs no data, and list what would run
        cluster: slurm submits each run as a job, and the comparison after them, in place of running them here
        limits: YAML with what a job may take, such as {partition: gpu, minutes: 720, cpus: 8, memory_gb: 32}
        options: further options of every experiment, as for monai.bundle, such as --max_epochs 36
    """
    fields = {"experiments": experiments, "output": output, "base": base, "folds": folds, "seeds": seeds}
    fields |= {"evaluate_on": evaluate_on, "evaluation": evaluation, "reference": reference}
    described = load_set(file, **fields, jobs=jobs, threads=threads, options=options or None)
    chosen = _chosen(described, only)
    runner = Runner(described, only=chosen)
    if cluster is not None:
        _submit(runner, chosen, cluster, limits, dry_run)
        return
    if limits is not None:
        raise ValueError("`limits` are those of a cluster's jobs; add `--cluster slurm`.")
    if dry_run:
        runner.check_without_data()
        for run in runner.runs:
            print(f"{run}: {runner.state(run)}")
        return
    runner.check()
    try:
        failures = runner.run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    comparison = comparison_of(described, chosen, failures=failures, skipped=runner.skipped)
    write_comparison(described.output, comparison, described.evaluate_on)
    if failures:
        raise SystemExit(1)


def _submit(runner: Runner, chosen: Sequence[str], cluster: str, limits: str | None, dry_run: bool) -> None:
    if cluster not in CLUSTERS:
        raise ValueError(f"`cluster` is '{cluster}'; expected {', '.join(CLUSTERS)}.")
    read = read_limits(limits)
    if dry_run:
        runner.check_without_data()
    else:
        runner.check()
    submit(runner, read, chosen, dry_run=dry_run)


def _chosen(described: ExperimentSet, only: Sequence[str] | str | None) -> list[str]:
    names = [experiment.name for experiment in described.experiments]
    chosen = names if only is None else [only] if isinstance(only, str) else list(only)
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise ValueError(f"There is no experiment {', '.join(map(repr, unknown))} in the set: {', '.join(names)}.")
    return chosen
