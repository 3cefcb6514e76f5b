"""The page that a training leaves: an Ignite handler, and the page made of the files in the run's folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence, Sized
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from torch import nn

from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.networks.wrapping import unwrap
from scripts.report.curves import Curve, read_curves
from scripts.report.facts import run_facts
from scripts.report.model_files import patch_of, write_model_files
from scripts.report.page import Page, Section, Table, write_page
from scripts.report.safely import or_warn
from scripts.report.sections import FILES, facts_section, guarded, number, training_section, words_sections
from scripts.trust.parsing import read_mapping
from scripts.whole_file import write_text
from scripts.words.table import ConceptTable

PAGE = "report.html"
FACTS = "training.json"
MEAN, OF_CLASS = "val_mean_dice", "dice_"


class TrainingPage:
    """Ignite handler that writes `report.html` to the run's folder when a training has ended; attach it to the trainer.

    It never fails the training: what goes wrong is logged as a warning that names it. Attach it after what saves the
    model and what writes the event files, and on the first of several processes alone.

    Args:
        network: that is trained; of a BiPVL-Seg its words are shown too, on a patch of one case.
        dataset: preprocessed cases with "image" and "label", the first of which is pictured; it may be empty.
        concepts: the words.
        folder: of the run, with `tensorboard`.
        roi_size: voxels of the patch.
        softmax: whether classes exclude each other.
        facts: what the page says of the training; "title" makes its heading.
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: Any,
        concepts: ConceptTable,
        *,
        folder: str | Path,
        roi_size: Sequence[int],
        softmax: bool = True,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = unwrap(network)
        self.dataset = dataset
        self.concepts = concepts
        self.folder = Path(folder)
        self.roi_size = roi_size
        self.softmax = softmax
        self.facts = dict(facts or {})
        self.begun = time.monotonic()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        self.begun = time.monotonic()

    def write(self, engine: Engine) -> None:
        or_warn("The page of this training could not be written", self._write)

    def _write(self) -> None:
        (self.folder / FILES).mkdir(parents=True, exist_ok=True)
        device = next(self.network.parameters()).device
        facts = {
            **self.facts,
            **run_facts(device, time.monotonic() - self.begun),
            "concepts": list(self.concepts.concepts),
            "classes": list(self.concepts.classes),
        }
        write_text(self.folder / FACTS, json.dumps(facts, indent=2, default=str) + "\n")
        if isinstance(self.network, BiPVLSeg) and len(cast(Sized, self.dataset)):
            or_warn("What the model makes of its words cannot be shown", lambda: self._write_model_files(device))
        print(f"written: {write_training_page(self.folder)}", flush=True)

    def _write_model_files(self, device: torch.device) -> None:
        network, training = cast(BiPVLSeg, self.network), self.network.training
        patch = patch_of(self.dataset[0], self.roi_size, len(self.concepts.classes), softmax=self.softmax)
        try:
            write_model_files(self.folder / FILES, network.eval(), [patch], device=device)
        finally:
            network.train(training)


def write_training_page(run: Path) -> Path:
    """Write `report.html` to the folder of a training, of its `training.json`, event files and `report_files`.

    Raises:
        FileNotFoundError: there is no `training.json`.
    """
    if not (run / FACTS).is_file():
        raise FileNotFoundError(f"There is no '{run / FACTS}': '{run}' is not the folder of a training that has ended.")
    facts = read_mapping(run / FACTS, "facts of a training")
    classes, concepts = ([str(name) for name in facts.get(key, [])] for key in ("classes", "concepts"))
    curves = cache(lambda: read_curves(run / "tensorboard"))  # read in the first section, and shown in two
    sections = [
        facts_section({key: value for key, value in facts.items() if key != "classes"}),
        *guarded("Validation", lambda: [_validation(curves(), classes)]),
        *guarded("Training curves", lambda: [training_section(curves())]),
        *guarded("Sentences and attention", lambda: _words(run / FILES, classes, concepts)),
    ]
    title = f"{facts.get('title', run.name)}: training"
    write_page(run / PAGE, Page(title, [section for section in sections if not section.empty], FILES))
    return run / PAGE


def _words(files: Path, classes: Sequence[str], concepts: Sequence[str]) -> list[Section]:
    sections = words_sections(files, classes, concepts)
    for section in sections:
        if not section.empty:
            section.text.insert(0, "Of the network after the last epoch.")
    return sections


def _validation(curves: Mapping[str, Curve], classes: Sequence[str]) -> Section:
    """Return the scores at the best validation, whose model was kept, and at the last one."""
    section = Section("validation", "Validation")
    if MEAN not in curves:
        section.remarks.append("No case was validated on; the model is that of the last epoch, however good or bad.")
        return section
    epochs, means = curves[MEAN]
    best, last = means.index(max(means)), len(means) - 1
    rows = [["mean", *(number(means[place]) for place in (best, last))]]
    for name in classes:
        steps, values = curves.get(f"{OF_CLASS}{name}", ([], []))
        found = dict(zip(steps, values, strict=True))
        rows.append([name, *(number(found.get(epochs[place], "nan")) for place in (best, last))])
    head = ["class", f"best, epoch {epochs[best]}", f"last, epoch {epochs[last]}"]
    section.text.append(
        "DSC from 0 to 1, on the grid of the network; model.pt is that of the best epoch. An evaluation scores it on "
        "the grid of the files and shows cases."
    )
    section.tables.append(Table("DSC by class, mean over the validation cases", head, rows))
    return section
