"""MONAI Label's app for bundles, and what its users miss in it.

The app that monailabel brings scores images by their epistemic uncertainty but has no strategy that picks the next
image by the score. It lets several images at once share one configuration, which is parsed anew for each, and what a
request says stays in it. And it answers a request that cannot be fulfilled without saying why.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import HTTPException
from guard import tasks
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.epistemic import Epistemic

logger = logging.getLogger(__name__)


def _bundle_app() -> ModuleType:
    path = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle" / "main.py"
    spec = importlib.util.spec_from_file_location("monaibundle_main", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path} is absent: is monailabel 0.8.5 installed in this environment?")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # The classes that it makes its tasks of.
    module.BundleInferTask, module.BundleTrainTask = tasks.Inference, tasks.Training  # type: ignore[attr-defined]
    module.EpistemicScoring = tasks.Scoring  # type: ignore[attr-defined]
    return module


class BundleApp(_bundle_app().MyApp, MONAILabelApp):  # type: ignore[misc] # the server looks for a direct subclass
    """One or more bundles, served on the device that there is."""

    def init_strategies(self) -> dict[str, Strategy]:
        strategies = super().init_strategies()
        return {**strategies, "epistemic": Epistemic()} if self.epistemic_models else strategies

    def init_batch_infer(self) -> tasks.Batch:
        return tasks.Batch()

    def infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        try:
            return super().infer(request, datastore)
        except MONAILabelException as error:
            raise HTTPException(status_code=400, detail=error.msg) from error
        except (ValueError, FileNotFoundError) as error:  # words or an image that the bundle refuses, a damaged model
            logger.warning("Refused: %s", error, exc_info=True)
            raise HTTPException(status_code=400, detail=tasks.reason_of(error)) from error

    def train(self, request: dict[str, Any]) -> Any:
        """3D Slicer sends an empty `run_id`, by which monai.bundle would run every entry of the configuration.

        In a process of its own, as by the server, a training that fails ends it with the reason as its last line.
        """
        try:
            return super().train({name: value for name, value in request.items() if value or name != "run_id"})
        except Exception as error:  # of whatever kind: the client is told
            if self._server_mode:
                raise
            logger.exception("The training failed.")
            raise SystemExit(f"The training failed: {tasks.reason_of(error)}") from error

    def batch_infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        result = super().batch_infer(request, datastore)
        failed = [image for image, done in result.items() if "error" in done]
        if failed and not self._server_mode:  # a process of its own, whose status tells
            raise SystemExit(f"{len(failed)} of {len(result)} images failed: {', '.join(failed[:5])}")
        return result
