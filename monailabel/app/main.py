"""MONAI Label's app for bundles, and what its users miss in it.

The app that monailabel brings scores images by their epistemic uncertainty but has no strategy that picks the next
image by the score. It lets several images at once share one configuration, which is parsed anew for each. And it
answers a request that cannot be fulfilled without saying why.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.epistemic import Epistemic

WORDS = "words of "  # scripts.words.lines.KEY of the bundle


def _bundle_app() -> ModuleType:
    path = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle" / "main.py"
    spec = importlib.util.spec_from_file_location("monaibundle_main", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path} is absent: is monailabel 0.8.5 installed in this environment?")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BundleApp(_bundle_app().MyApp, MONAILabelApp):  # type: ignore[misc] # the server looks for a direct subclass
    """One or more bundles, served on the device that there is."""

    def init_strategies(self) -> dict[str, Strategy]:
        strategies = super().init_strategies()
        return {**strategies, "epistemic": Epistemic()} if self.epistemic_models else strategies

    def info(self) -> dict[str, Any]:
        """The model that a training starts from unless another is chosen is the first one: let it be model.pt."""
        info = super().info()
        for trainer in info["trainers"].values():
            trainer["config"]["model_filename"].sort(key=lambda name: (name != "model.pt", name))
        return info

    def infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        for name, text in request.items():  # these become part of a configuration, which would run such a text
            if name.startswith(WORDS) and str(text).lstrip().startswith(("$", "%", "@")):
                raise HTTPException(status_code=400, detail=f"'{name}' begins with $, % or @: begin otherwise.")
        try:
            return super().infer(request, datastore)
        except ValueError as error:  # words or an image that the bundle refuses
            raise HTTPException(status_code=400, detail=str(error)) from error

    def train(self, request: dict[str, Any]) -> Any:
        """3D Slicer sends an empty `run_id`, by which monai.bundle would run every entry of the configuration."""
        return super().train({name: value for name, value in request.items() if value or name != "run_id"})

    def scoring(self, request: dict[str, Any], datastore: Any = None) -> Any:
        return super().scoring({**request, "max_workers": 1}, datastore)

    def batch_infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        return super().batch_infer({"multi_gpu": False, **request, "max_workers": 1}, datastore)
