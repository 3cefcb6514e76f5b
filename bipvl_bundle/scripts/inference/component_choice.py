"""Choice, on labelled cases, of which classes gain by leaving out stray components."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.data import decollate_batch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from scripts.data.components import kept_components, volume_of_voxel
from scripts.messages.tables import aligned
from scripts.metrics.report import check_output_folder
from scripts.metrics.scores import class_metrics
from scripts.whole_file import write_rows, write_text

VOLUMES = (0.05, 0.5, 5.0)
"""mL below which components are tried to be removed."""
AS_IS, LARGEST = "as it is", "largest component"
GAIN = 0.001  # mean DSC: less is not worth a rule
FILE = "postprocessing.yaml"


class ComponentChoice:
    """Segments labelled cases, and chooses for each class what to do with its components.

    Tried are the largest component alone, and components from 0.05, 0.5 and 5 mL on. A rule is chosen if it raises the
    mean DSC by more than 0.001 and worsens no case by more than that. Writes `postprocessing.csv`, and
    `postprocessing.yaml`, an overlay with what was chosen.

    Args:
        network: a trained one.
        dataloader: batches of one case, with "image" and "reference".
        inferer: such as a sliding window.
        postprocessing: from "pred", logits, to labels on the grid of the reference.
        class_names: the classes, labels 1, 2, ... or channels.
        softmax: whether classes exclude each other.
        device: where the network is.
        output_dir: of the two files.

    Raises:
        ValueError: there is no case.
        OSError: the folder cannot be written to.
    """

    def __init__(
        self,
        network: nn.Module,
        dataloader: Iterable[Any],
        inferer: Any,
        postprocessing: Any,
        class_names: Sequence[str],
        *,
        softmax: bool = True,
        device: str | torch.device = "cpu",
        output_dir: str | Path,
    ) -> None:
        self.network = network.eval()
        self.dataloader, self.inferer, self.postprocessing = dataloader, inferer, postprocessing
        self.class_names, self.softmax = list(class_names), softmax
        self.device = device
        self.output_dir = Path(output_dir)

    def run(self) -> dict[str, str]:
        """Segment all cases, write and print the choice; return the rule of each class that has one."""
        check_output_folder(self.output_dir)
        found = [self._scores(batch) for batch in tqdm(self.dataloader, desc="postprocessing", unit="case")]
        if not found:
            raise ValueError("There is no case to choose on; check `dataset_dir`, `fold` and `evaluate_on`.")
        scores = np.stack(found)  # cases x classes x rules
        chosen = {}
        for number, name in enumerate(self.class_names):
            rule = best_rule(scores[:, number])
            if rule:
                chosen[name] = _rules()[rule]
        rows = [
            {
                "class": name,
                **{r: f"{v:.4f}" for r, v in zip(_rules(), means, strict=True)},
                "chosen": chosen.get(name, AS_IS),
            }
            for name, means in zip(self.class_names, _means(scores), strict=True)
        ]
        write_rows(self.output_dir / "postprocessing.csv", rows)
        write_text(self.output_dir / FILE, yaml.safe_dump(options_of(chosen), sort_keys=False))
        print("\n".join(aligned([list(rows[0]), *(list(row.values()) for row in rows)])))
        print(f"written: {self.output_dir / FILE}, an overlay for inference.yaml and evaluate.yaml")
        return chosen

    @torch.no_grad()
    def _scores(self, batch: dict[str, Any]) -> NDArray[np.float64]:
        batch["pred"] = self.inferer(batch["image"].to(self.device), self.network)
        (case,) = decollate_batch(batch)
        case = self.postprocessing(case)
        prediction, reference = case["pred"], case["reference"].as_subclass(Tensor)
        volume = volume_of_voxel(prediction)
        table = []
        for number in range(len(self.class_names)):
            found, wanted = (self._mask(labels, number) for labels in (prediction.as_subclass(Tensor), reference))
            table.append(rule_scores(found, wanted, volume))
        return np.array(table)

    def _mask(self, labels: Tensor, number: int) -> NDArray[np.bool_]:
        return np.asarray((labels[0] == number + 1 if self.softmax else labels[number] != 0).cpu().numpy())


def rule_scores(prediction: NDArray[np.bool_], reference: NDArray[np.bool_], volume: float) -> list[float]:
    """Return the DSC of a class under each rule, voxels of so many mL; NaN where it is in neither mask."""
    masks = [prediction, kept_components(prediction, largest=True)]
    masks += [kept_components(prediction, largest=False, smallest=ml / volume) for ml in VOLUMES]
    wanted = torch.from_numpy(reference)
    return [class_metrics(torch.from_numpy(mask), wanted, spacing=None).dice for mask in masks]


def best_rule(scores: NDArray[np.float64]) -> int:
    """Return the row of the best rule for a class, 0 for none; scores are cases x rules, "as it is" first."""
    scores = scores[~np.isnan(scores).any(axis=1)]
    if not len(scores):
        return 0
    gains = scores - scores[:, :1]
    means = np.where(gains.min(axis=0) < -GAIN, 0.0, gains.mean(axis=0))
    rule = int(means.argmax())
    return rule if means[rule] > GAIN else 0


def options_of(chosen: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a configuration for the rules of some classes."""
    volumes = dict(zip(_rules()[2:], VOLUMES, strict=True))
    return {
        "keep_largest": [name for name, rule in chosen.items() if rule == LARGEST],
        "remove_smaller": {name: volumes[rule] for name, rule in chosen.items() if rule in volumes},
    }


def _rules() -> list[str]:
    return [AS_IS, LARGEST, *(f"from {ml:g} mL" for ml in VOLUMES)]


def _means(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    count = (~np.isnan(scores)).sum(axis=0)
    return np.divide(np.nansum(scores, axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)
