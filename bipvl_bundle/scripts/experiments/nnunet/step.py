"""nnU-Net as a step of a set of experiments: it plans, trains, predicts and is scored in one call."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.experiments.nnunet.environment import ENVIRONMENT, is_there
from scripts.experiments.steps import ARGUMENTS, Identity, Step

WHERE = ("environment", "install", "device")
"""Settings that change no result."""


@dataclass(frozen=True)
class NnunetStep(Step):
    """Step that runs nnU-Net itself on the cases of the set's fold; the configuration gives data and classes alone.

    Attributes:
        row: `output`, `name` and `title` of the experiment.
        nnunet: settings of the row, see `nnunet_settings`.
    """

    row: Mapping[str, str] = field(default_factory=dict)
    nnunet: Mapping[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> Path:
        return Path(self.nnunet.get("environment", ENVIRONMENT)).expanduser().absolute()

    @property
    def obstacle(self) -> str | None:
        if is_there(self.environment) or self.nnunet.get("install"):
            return None
        return (
            f"nnU-Net's environment is not in '{self.environment}'. `install: true` in the row makes it there (3 GB), "
            "`environment` names another folder."
        )

    @property
    def resumable(self) -> bool:
        return any((self.folder.parent / "results").rglob("checkpoint_latest.pth"))

    def settings(self) -> Identity:
        return self._with_nnunet(super().settings())

    def identity(self) -> Identity:
        return self._with_nnunet(super().identity())

    def _with_nnunet(self, identity: Identity) -> Identity:
        return {**identity, "nnunet": {key: value for key, value in self.nnunet.items() if key not in WHERE}}

    def arguments(self) -> dict[str, Any]:
        settings = {key: value for key, value in self.nnunet.items() if key != "install"}
        settings |= {"environment": str(self.environment)}
        own = {key: self.options[key] for key in ("fold", "seed", "evaluate_on")}
        rest = {key: value for key, value in super().arguments().items() if key not in own}
        return {**rest, **own, **self.row, **settings}

    def command(self) -> list[str]:
        return [sys.executable, "-m", "scripts.experiments.nnunet", str(self.folder / ARGUMENTS)]
