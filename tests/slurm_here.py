"""A Slurm of one node on this machine, for tests: ``python tests/slurm_here.py start FOLDER``, ``... stop FOLDER``.

Needs root and Debian's slurm-wlm and munge (``apt-get install slurm-wlm munge``). All its files are in the folder;
clients find it by SLURM_CONF=FOLDER/slurm.conf. Munge is started if it does not run, and then stopped too.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "munged", "munge")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={first}
SlurmdPort={second}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why there can be no Slurm on this machine; None if there can."""
    absent = [name for name in PROGRAMS if _find(name) is None]
    if absent:
        return f"there is no {', '.join(absent)}: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "Slurm's daemons are started by root here"


def start(folder: Path) -> dict[str, str]:
    """Start the daemons and wait until the node is idle; returns the environment by which clients find them."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    host = socket.gethostname().split(".")[0]
    first, second = _free_port(), _free_port()
    cpus = os.cpu_count() or 1
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, first=first, second=second, cpus=cpus))
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        subprocess.run(["su", "munge", "-s", "/bin/sh", "-c", str(_find("munged"))], check=True)
        (folder / "munge_is_ours").touch()
    for name in ("slurmctld", "slurmd"):
        subprocess.run([str(_find(name)), "-c"], env={**os.environ, **environment}, check=True)
    deadline = time.monotonic() + 120
    while "idle" not in _output(["sinfo", "--noheader", "--format", "%t"], environment):
        if time.monotonic() > deadline:
            log = (folder / "slurmctld.log").read_text()[-2000:]
            raise TimeoutError(f"Slurm's node is not idle after two minutes: {log}")
        time.sleep(0.5)
    return environment


def stop(folder: Path) -> None:
    """End all jobs and the daemons that `start` has started."""
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run(["scancel", "--user", "root"], env={**os.environ, **environment}, check=False)
    time.sleep(2)
    pids = [folder / f"{name}.pid" for name in ("slurmd", "slurmctld")]
    if (folder / "munge_is_ours").is_file():
        pids.append(Path("/run/munge/munged.pid"))
    for path in pids:
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(int(path.read_text()), signal.SIGTERM)


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Context manager with a running Slurm; yields the environment by which clients find it."""
    try:
        yield start(folder)
    finally:
        stop(folder)


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _output(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    ).stdout


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]](Path(sys.argv[2]).absolute())
