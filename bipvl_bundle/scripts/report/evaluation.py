"""Ignite handler that leaves a page at the end of an evaluation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import nn

from scripts.data.cases import Item, case_of, images_of
from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.networks.wrapping import unwrap
from scripts.report.choice import mean_dice, typical_cases
from scripts.report.facts import run_facts
from scripts.report.kept_cases import Case, keep, write_index
from scripts.report.model_files import patch_of, write_model_files
from scripts.report.run_page import FACTS, PER_CASE, write_run_page
from scripts.report.safely import or_warn
from scripts.report.sections import FILES
from scripts.report.volumes import write_volumes
from scripts.whole_file import read_rows, write_text
from scripts.words.table import ConceptTable


class EvaluationPage:
    """Ignite handler that keeps the label maps of an evaluation and writes `report.html` beside its scores.

    It never fails the evaluation: what goes wrong is logged as a warning, and the scores stay. Attach it to the
    evaluator, whose key metric writes the scores.

    Args:
        network: that is evaluated; of a BiPVL-Seg its words are shown too.
        items: the cases.
        transform: preprocessing, which brings "image" and "label" to the network's grid.
        concepts: the words.
        folder: of the scores; label maps, volumes.csv and the page go there.
        run_dir: folder of the run, with `tensorboard` and `reading`.
        roi_size: voxels of the patch in which the words are shown.
        softmax: whether classes exclude each other.
        facts: what the page says of the evaluation; "title" and "split" make its heading.
        device: of the network.
    """

    def __init__(
        self,
        network: nn.Module,
        items: Sequence[Item],
        transform: Callable[[dict[str, Any]], Mapping[str, Any]],
        concepts: ConceptTable,
        *,
        folder: str | Path,
        run_dir: str | Path,
        roi_size: Sequence[int],
        softmax: bool = True,
        facts: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = unwrap(network)
        self.items = {case_of(item): item for item in items}
        self.transform = transform
        self.concepts = concepts
        self.folder, self.run_dir = Path(folder), Path(run_dir)
        self.roi_size = roi_size
        self.softmax = softmax
        self.facts = dict(facts or {})
        self.device = device
        self.kept: list[Case] = []
        self.begun = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        self.begun = self.begun or time.monotonic()  # not anew after a case that failed

    def keep(self, engine: Engine) -> None:
        """Keep the label maps of the cases of an iteration."""
        or_warn("The label maps of a case could not be kept", lambda: self._keep(engine))

    def write(self, engine: Engine) -> None:
        """Write the page, on the first of several processes."""
        gathered = cast("list[list[Case]]", idist.all_gather(self.kept))
        if idist.get_rank() == 0:
            kept = {case.case: case for cases in gathered for case in cases}
            or_warn("The page of this evaluation could not be written", lambda: self._write(list(kept.values())))

    def _keep(self, engine: Engine) -> None:
        cases = zip(cast("list[Item]", engine.state.batch), cast("list[Item]", engine.state.output), strict=True)
        for source, output in cases:
            found = {**source, **output}
            maps = {"reference": _array(found["reference"]), "prediction": _array(found["pred"])}
            case = case_of(found)
            images = images_of(self.items[case])
            self.kept.append(keep(self.folder, case, images, maps, found["reference"].affine.cpu().numpy()))

    def _write(self, kept: Sequence[Case]) -> None:
        write_index(self.folder, kept)
        self._write_facts()
        if self.softmax:
            places = {case.case: (self.folder / case.prediction, case.images[0]) for case in kept}
            write_volumes(self.folder / "volumes.csv", places, self.concepts.classes)
        if isinstance(self.network, BiPVLSeg):
            or_warn("What the model makes of its words cannot be shown", self._write_model_files)
        page = write_run_page(self.folder, self.run_dir)
        print(f"written: {page}", flush=True)

    def _write_facts(self) -> None:
        facts = {
            **self.facts,
            "cases": len(self.items),
            **run_facts(self.device, time.monotonic() - self.begun),
            "concepts": list(self.concepts.concepts),
        }
        write_text(self.folder / FACTS, json.dumps(facts, indent=2, default=str) + "\n")

    def _write_model_files(self) -> None:
        (self.folder / FILES).mkdir(exist_ok=True)
        chosen = list(typical_cases(mean_dice(read_rows(self.folder / PER_CASE)))) or list(self.items)[:1]
        ordered = [chosen[len(chosen) // 2], *chosen]  # the median first: it is pictured
        patches = []
        for name in dict.fromkeys(ordered):
            item = self.items[name]
            case = self.transform({**item, "label": item["reference"]})
            patches.append(patch_of(case, self.roi_size, len(self.concepts.classes), softmax=self.softmax))
        network = cast(BiPVLSeg, self.network).eval()
        write_model_files(self.folder / FILES, network, patches, device=self.device)


def _array(labels: torch.Tensor) -> Any:
    return (labels.as_tensor() if isinstance(labels, MetaTensor) else labels).cpu().numpy()
