"""What a job may take of a cluster, read from YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from scripts.trust.parsing import check_keys, read_mapping

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,:&|=@/+-]*")
"""What a name of the scheduler may be: it goes into a script."""


@dataclass(frozen=True)
class Limits:
    """What Slurm is asked for each run; None leaves it to the cluster's default.

    Attributes:
        minutes: of a job. One that takes longer is queued again and goes on.
        cpus: cores, and threads of the run.
        gpus: 0 or 1.
        memory_gb: main memory.
        partition: as `sbatch` has it, and so are the next three.
        account: whose time it is.
        qos: quality of service.
        constraint: features that the node must have.
        parallel: runs at a time.
        notice: seconds before the end of its minutes in which a run is told to end.
        requeues: how often a run may reach the end of its minutes.
    """

    minutes: int = 1440
    cpus: int = 4
    gpus: int = 1
    memory_gb: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    parallel: int = 16
    notice: int = 120
    requeues: int = 20

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of submitit's executor for a run."""
        given: dict[str, Any] = {"time": self.minutes, "cpus_per_task": self.cpus}
        given |= {"mem": None if self.memory_gb is None else f"{self.memory_gb}GB"}
        given |= {"gpus_per_node": self.gpus or None, "signal_delay_s": self.notice, "array_parallelism": self.parallel}
        given |= {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint")}
        return {name: value for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        shown = {"minutes": self.minutes, "cpus": self.cpus, "gpus": self.gpus, "GB": self.memory_gb}
        names = [f"{name} {getattr(self, name)}" for name in ("partition", "account", "qos", "constraint")]
        words = [f"{value} {name}" for name, value in shown.items() if value is not None]
        return ", ".join([*words, *(text for text in names if not text.endswith(" None"))])


def read_limits(file: str | Path | None) -> Limits:
    """Read the limits of a YAML file with the fields of `Limits`; without a file the defaults.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a field that there is not, or a value that is none; the file and the field are named.
    """
    if file is None:
        return Limits()
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There are no limits '{path}'; expected a YAML file with {', '.join(_NAMES)}.")
    content = read_mapping(path, f"a mapping with some of {', '.join(_NAMES)}")
    check_keys(content, known=_NAMES, where=f"'{path}'")
    given = {name: value for name, value in content.items() if value is not None}
    _check(given, f"'{path}'")
    return Limits(**given)


_NAMES = tuple(field.name for field in fields(Limits))
_TEXTS = ("partition", "account", "qos", "constraint")


def _check(given: Mapping[str, Any], where: str) -> None:
    for name, value in given.items():
        if name in _TEXTS:
            if not isinstance(value, str) or not _WORD.fullmatch(value):
                raise ValueError(f"{where}: {name} is {value!r}; expected a name as `sinfo` or `sacctmgr` shows it.")
            continue
        least, most = (0, 1) if name == "gpus" else (0 if name == "requeues" else 1, 10**6)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            wanted = "0 or 1, since a run is one process" if name == "gpus" else f"a whole number from {least}"
            raise ValueError(f"{where}: {name} is {value!r}; expected {wanted}.")
