"""``python -m scripts.experiments.nnunet ARGUMENTS.json``: the command `nnunet` by a file of arguments."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scripts.experiments.nnunet.command import run_nnunet

if __name__ == "__main__":
    run_nnunet(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
