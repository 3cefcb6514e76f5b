"""Choice, on labelled cases, of which classes gain by leaving out stray components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from torch import Tensor

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
    """Ignite handler that chooses for each class what to do with its components; attach it to an evaluator.

    Scored is what the evaluator makes of each case, label maps on the grid of the reference. Tried are the largest
    component alone, and components from 0.05, 0.5 and 5 mL on. A rule is chosen if it raises the mean DSC by more than
    0.001 and worsens no case by more than that. `write` makes `postprocessing.csv`, and `postprocessing.yaml`, an
    overlay with what was chosen.

    Args:
        class_names: the classes, labels 1, 2, ... or channels.
        softmax: whether classes exclude each other.
        output_dir: of the two files.
    """

    def __init__(self, class_names: Sequence[str], *, softmax: bool = True, output_dir: str | Path) -> None:
        self.class_names, self.softmax = list(class_names), softmax
        self.output_dir = Path(output_dir)
        self.found: list[NDArray[np.float64]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Score the cases of an iteration; each has "pred" and "reference"."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        for source, case in zip(batch, output, strict=True):
            self.found.append(self._scores({**source, **case}))

    def write(self) -> dict[str, str]:
        """Write and print the choice; return the rule of each class that has one.

        Raises:
            ValueError: no case was scored.
            OSError: the folder cannot be written to.
        """
        check_output_folder(self.output_dir)
        if not self.found:
            raise ValueError(
                "There is no case to choose on; check `dataset_dir`, `fold` and `evaluate_on`. Cases that failed are "
                f"listed in {self.output_dir}."
            )
        scores = np.stack(self.found)  # cases x classes x rules
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

    def _scores(self, case: Mapping[str, Any]) -> NDArray[np.float64]:
        prediction, reference = case["pred"], case["reference"].as_subclass(Tensor)
        volume, labelled = volume_of_voxel(prediction), case.get("labelled", [True] * len(self.class_names))
        table = np.full((len(self.class_names), len(_rules())), np.nan)
        for number in np.flatnonzero(labelled).tolist():
            found, wanted = (self._mask(labels, number) for labels in (prediction.as_subclass(Tensor), reference))
            table[number] = rule_scores(found, wanted, volume)
        return table

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
