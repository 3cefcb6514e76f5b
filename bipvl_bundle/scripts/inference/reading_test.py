"""Evaluation of whether a model uses its words: the same cases segmented in the right words and in others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from scripts.inference.reading_report import ReadingReport
from scripts.metrics.report import check_output_folder
from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.words.table import ConceptTable
from scripts.words.wordings import Wording, wordings

logger = logging.getLogger(__name__)


class ReadingTest:
    """Evaluation that segments labelled cases in every wording of their classes and reports how DSC changes.

    Scores are DSC on the grid that the network sees, each class against its own label, and against the label of the
    class whose words it was given. Writes `reading.csv` and `reading.md`, and prints the table and a verdict.

    With the head "words" the image is seen once for several wordings; with "channels" once for each.

    Args:
        network: a trained ``BiPVLSeg``.
        concepts: the right words.
        dataloader: batches of one case, with "image" and "label".
        inferer: such as a sliding window; called with the image and a network that returns a logit map a wording.
        softmax: whether classes exclude each other; labels are then 1 x 1 x H x W x D, else one channel a region.
        device: where the network is.
        output_dir: of the two files.
        at_once: wordings whose logits are held in memory at once.

    Raises:
        ValueError: the network reads no words, or there is no case.
        OSError: the folder cannot be written to.
    """

    def __init__(
        self,
        network: nn.Module,
        concepts: ConceptTable,
        dataloader: Iterable[Any],
        inferer: Callable[..., Any],
        *,
        softmax: bool = True,
        device: str | torch.device = "cpu",
        output_dir: str | Path,
        at_once: int = 8,
    ) -> None:
        if not isinstance(network, BiPVLSeg):
            raise ValueError(
                f"A {type(network).__name__} reads no words, so that there is nothing to test. Give the configuration "
                "of a BiPVL-Seg, without the overlay of a baseline."
            )
        self.network = network.eval()
        self.dataloader = dataloader
        self.inferer = inferer
        self.softmax = softmax
        self.device = device
        self.output_dir = Path(output_dir)
        self.at_once = at_once
        self.wordings = wordings(concepts)

    def run(self) -> ReadingReport:
        """Test all cases, print and write the report."""
        check_output_folder(self.output_dir)
        overlaps = [self._overlaps(case) for case in tqdm(self.dataloader, desc="reading test", unit="case")]
        if not overlaps:
            raise ValueError("There is no case to test on; check `dataset_dir`, `fold` and `evaluate_on`.")
        report = ReadingReport(self.wordings, np.stack(overlaps, axis=1))
        report.write(self.output_dir)
        print(report.text())
        return report

    @torch.no_grad()
    def _overlaps(self, case: dict[str, Any]) -> NDArray[np.float64]:
        """Return the DSC of each channel with each label per wording; NaN for empty labels.  # W x N x N"""
        image, label = case["image"].to(self.device), case["label"].as_subclass(Tensor)
        found = []
        for start in range(0, len(self.wordings), self.at_once):
            asked = self.wordings[start : start + self.at_once]
            logits = self.inferer(image, _ManyWordings(self.network, asked))
            logits = [logits] if isinstance(logits, Tensor) else logits
            found += [self._dice(one.as_subclass(Tensor).cpu(), label) for one in logits]
        return np.stack(found)

    def _dice(self, logits: Tensor, label: Tensor) -> NDArray[np.float64]:
        if self.softmax:
            count = logits.shape[1]
            pairs = logits.argmax(dim=1).flatten() * count + label.flatten().long()
            both = torch.bincount(pairs, minlength=count**2).reshape(count, count).double()
            predicted, present, both = both.sum(dim=1)[1:], both.sum(dim=0)[1:], both[1:, 1:]
        else:
            masks, labels = logits[0].flatten(1).gt(0).double(), label[0].flatten(1).ne(0).double()
            predicted, present, both = masks.sum(dim=1), labels.sum(dim=1), masks @ labels.mT
        dice = 2 * both / (predicted[:, None] + present[None, :])
        return torch.where(present[None, :] > 0, dice, torch.nan).numpy()


class _ManyWordings(nn.Module):
    """Network that returns a tuple: the logits of an image in several wordings."""

    def __init__(self, network: BiPVLSeg, asked: Sequence[Wording]) -> None:
        super().__init__()
        self.networks = [network.with_concepts(wording.table) for wording in asked]
        self.kernels = [other.class_kernels() for other in self.networks]
        self.head = network.word_head

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.head is None:
            return tuple(other(image) for other in self.networks)
        features = self.networks[0].features(image)
        return tuple(self.head(features, kernels) for kernels in self.kernels)
