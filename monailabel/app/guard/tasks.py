"""MONAI Label's tasks for bundles, each request by itself, and one bad case among many no reason to stop."""

from __future__ import annotations

import copy
import csv
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.scoring.epistemic_v2 import EpistemicScoring
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import name_to_device, remove_file

from guard.digests import check_digest  # the bundle's, put here by start.sh
from guard.plans import require_same_network, require_similar_image, trained_with

logger = logging.getLogger(__name__)

ASKED = ("words of ", "classes", "further classes")  # how options of scripts.inference.requests of the bundle begin
OUTCOME = "fine_tuning.json"  # scripts.training.fine_tuning.OUTCOME of the bundle
FAILURES = "failures.csv"
ONE_AT_A_TIME = threading.RLock()
"""MONAI Label drops and imports a bundle's modules, and changes sys.path, for each image."""


class BadImage(ValueError):
    """An image that cannot be segmented, with the reason."""


def reason_of(error: BaseException) -> str:
    """What the error says that was meant for a reader; MONAI wraps those of transforms in RuntimeErrors."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    said = getattr(error, "detail", None) or getattr(error, "msg", None) or str(error)
    return str(said).strip() or type(error).__name__


class Inference(BundleInferTask):
    """Inference with a configuration of the request's own, and with model files that are what was written."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._sound: dict[str, tuple[int, int]] = {}
        self._held: dict[str, str] = {}
        self._followed: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}
        super().__init__(*args, **{"load_strict": True, **options})

    def config(self) -> dict[str, Any]:
        """The options, with the models that are there now."""
        files = sorted(path.name for path in Path(self.path[0]).parent.glob("*.pt"))
        return {**self._config, "model_filename": sorted(files, key=lambda name: name != "model.pt")}

    def _load_bundle_config(self, path: str, config: str) -> ConfigParser:
        """The configuration with the settings of models/model.pt, by which the network is built."""
        parser = super()._load_bundle_config(path, config)
        model = Path(path) / "models/model.pt"
        try:
            parser.config.update(trained_with(path, parser.get(), model) if model.is_file() else {})
        except ValueError as error:
            logger.error("Requests will be refused: %s", error)
        self.built = copy.deepcopy(parser.get())
        return parser

    def _settings(self, path: Path) -> dict[str, Any]:
        """The settings of a model, which are those of model.pt where its file does not say."""
        self._check(path)
        known = self._followed.get(path.name)
        if known is None or known[0] != self._sound[path.name]:
            settings = trained_with(self.bundle_path, self.built, path)
            require_same_network(self.bundle_path, self.built, {**self.built, **settings}, path.name)
            self._followed[path.name] = known = self._sound[path.name], settings
        return copy.deepcopy(known[1])

    def _model(self, data: Mapping[str, Any] | None) -> Path:
        """The model's file that a request chooses, if it does."""
        chosen = (data or {}).get("model_filename")
        chosen = chosen[0] if isinstance(chosen, list) and chosen else chosen
        return Path(self.path[0]).with_name(chosen) if chosen else Path(self.get_path())

    def __call__(self, request: Mapping[str, Any], callbacks: Any = None) -> Any:
        alone = copy.copy(self)  # shares the networks
        # The words of a request are read where they come with the image; no configuration need hold them.
        options = getattr(self, "displayable_configs", {})
        alone.displayable_configs = {name: value for name, value in options.items() if not name.startswith(ASKED)}
        request = {**self.config(), **request}
        with ONE_AT_A_TIME:
            settings = self._settings(self._model(request))
            alone.bundle_config = ConfigParser({**copy.deepcopy(self.bundle_config.get()), **settings})
            file, answer = super(Inference, alone).__call__(request, callbacks)
        if "classes" in answer:  # other ones than the model lists
            answer["label_names"] = answer.pop("classes")
        return file, answer

    def run_pre_transforms(self, data: Any, transforms: Sequence[Callable[..., Any]]) -> Any:
        try:
            if data.get("other_images") is False:  # the bundle lists the option
                require_similar_image(str(data["image"]), self._model(data))
            return super().run_pre_transforms(data, transforms)
        except MemoryError:
            raise
        except Exception as error:  # whatever a reader or a transform raises, the image is what it cannot use
            raise BadImage(reason_of(error)) from error

    def _get_network(self, device: str, data: Any) -> Any:
        path = self._model(data)
        self._check(path)
        if self._held.get(device) != path.name:  # MONAI Label tells files apart by their time alone
            self._networks.pop(device, None)
            self._held[device] = path.name
        return super()._get_network(device, data)

    def _check(self, path: Path) -> None:
        """Refuse a file that is absent or not what was written; one that stays what it is is read once."""
        if not path.is_file():
            raise FileNotFoundError(f"There is no model '{path.name}' any more.")
        status = path.stat()
        state = (status.st_mtime_ns, status.st_size)
        if self._sound.get(path.name) != state:
            if check_digest(path) is None:
                logger.warning("%s carries no digest: damage to it would go unnoticed.", path)
            self._sound[path.name] = state


class Training(BundleTrainTask):
    """Training with a configuration of the request's own, from a model file that is what was written."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"load_strict": True, **options})

    def config(self) -> dict[str, Any]:
        """The model that a training starts from unless another is chosen is the first one: let it be model.pt."""
        options = super().config()
        options["model_filename"].sort(key=lambda name: (name != "model.pt", name))
        return options

    @property
    def outcome(self) -> Path:
        return Path(self.bundle_path) / "models" / OUTCOME

    def stats(self) -> dict[str, Any]:
        """How the last training came out, beside the model that it started from."""
        try:
            return json.loads(self.outcome.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> Any:
        if not datastore.datalist():
            raise ValueError("There is nothing to learn from: no label was submitted yet.")
        alone = copy.copy(self)
        alone.bundle_config = ConfigParser(copy.deepcopy(self.bundle_config.get()))
        chosen = request.get("model_filename", "model.pt")
        alone.start = Path(self.bundle_path) / "models" / (chosen[0] if isinstance(chosen, list) else chosen)
        self.outcome.unlink(missing_ok=True)
        try:
            return super(Training, alone).__call__(request, datastore)
        except Exception as error:  # of whatever kind: the client is told
            if not self.outcome.exists():
                text = f"FAILED, the model in use is what it was: {reason_of(error)}"
                self.outcome.write_text(json.dumps({"text": text, "failed": True}, indent=2) + "\n", encoding="utf-8")
            raise

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Train in the folder of the models that are served; a new one replaces the old one if it is no worse.

        The settings are those of the model that the training starts from.
        """
        overrides |= trained_with(self.bundle_path, self.bundle_config.get(), self.start)
        overrides |= {"ckpt_dir": str(Path(self.bundle_path) / "models"), "overwrite": True}
        return overrides

    def check_start(self, model_filename: str) -> None:
        """Refuse to start from a model file that is absent or not what was written."""
        path = Path(self.bundle_path) / "models" / model_filename
        if not path.is_file():
            raise ValueError(f"There is no model '{model_filename}' to start from.")
        check_digest(path)

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]) -> None:
        self.check_start(os.path.basename(model_pytorch))
        super()._load_checkpoint(model_pytorch, pretrained, train_handlers)


class Batch(BatchInferTask):
    """Segments many images; those that cannot be are told, and the others done all the same."""

    def get_images(self, request: Mapping[str, Any], datastore: Datastore) -> list[str]:
        """As asked for; of those without a label, the ones that a batch has not segmented before."""
        images = super().get_images(request, datastore)
        if request.get("images") != "unlabeled":
            return images
        tag = request.get("label_tag", "original")
        return [image for image in images if not datastore.get_label_uri(image, tag)]

    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Callable[..., Any]) -> dict[str, Any]:
        images = sorted(self.get_images(request, datastore))
        images = images[: request.get("max_batch_size") or None]
        device = name_to_device(request.get("device"))
        tag = request.get("label_tag", "original")
        options = {name: value for name, value in request.items() if name not in ("images", "gpus", "multi_gpu")}
        options |= {"save_label": True, "label_tag": tag, "device": device}
        result: dict[str, Any] = {}
        for count, image in enumerate(images, start=1):
            try:
                result[image] = infer({**options, "image": image}, datastore)
                remove_file(result[image].pop("file", None))
            except Exception as error:  # of whatever kind: it is this image's, and is told
                result[image] = {"error": reason_of(error)}
                logger.warning("%s failed: %s", image, result[image]["error"])
            logger.info("%s: %d of %d", image, count, len(images))
        self._tell(result, datastore, tag)
        return result

    def _tell(self, result: Mapping[str, Any], datastore: Any, tag: str) -> None:
        failed = {image: done["error"] for image, done in result.items() if "error" in done}
        folder = Path(datastore._datastore.label_path(tag)) if hasattr(datastore, "_datastore") else None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FAILURES).unlink(missing_ok=True)
            if failed:
                with (folder / FAILURES).open("w", newline="", encoding="utf-8") as file:
                    rows = [(image, datastore.get_image_uri(image), failed[image]) for image in failed]
                    csv.writer(file, lineterminator="\n").writerows([("case", "file", "reason"), *rows])
        logger.info("%d of %d images segmented, %d failed.", len(result) - len(failed), len(result), len(failed))


class Scoring(EpistemicScoring):
    """Scores images by uncertainty; those that cannot be scored are told, and the others scored all the same."""

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        self.failures: dict[str, str] = {}
        summary = super().__call__({**request, "max_workers": 1}, datastore)
        return {**summary, "executed": summary["executed"] - len(self.failures), "failures": self.failures}

    def run_scoring(self, image_id: str, *args: Any) -> None:
        try:
            super().run_scoring(image_id, *args)
        except Exception as error:  # of whatever kind: it is this image's, and is told
            self.failures[image_id] = reason_of(error)
            logger.warning("%s failed: %s", image_id, self.failures[image_id])
