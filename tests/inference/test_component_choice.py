from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ignite.engine import Engine
from monai.data import MetaTensor, decollate_batch, list_data_collate

from scripts.data.components import CleanComponentsd
from scripts.inference.component_choice import ComponentChoice, best_rule

NAMES = ["liver", "vessel"]


def case(stray: bool) -> dict[str, torch.Tensor]:
    """Voxels of 1 mL. The liver has a stray piece of 1 voxel, the vessel is two pieces of 6 in the reference too."""
    reference = torch.zeros(1, 16, 16, 16)
    reference[..., 2:6, 2:6, 2:6] = 1
    reference[..., 10:12, 2:5, 2] = reference[..., 10:12, 2:5, 8] = 2
    image = reference.clone()
    if stray:
        image[..., 15, 15, 15] = 1
    item = {"image": image, "reference": MetaTensor(reference, affine=10 * torch.eye(4))}
    return list_data_collate([item])


def logits(image: torch.Tensor) -> MetaTensor:
    return MetaTensor(torch.nn.functional.one_hot(image[:, 0].long(), 3).movedim(-1, 1).float())


def to_labels(item: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    labels = item["pred"].argmax(0, keepdim=True)
    return {**item, "pred": MetaTensor(labels.as_subclass(torch.Tensor), affine=item["reference"].affine)}


def chosen_on(cases: list[dict[str, torch.Tensor]], folder: Path) -> ComponentChoice:
    """The choice after an evaluator has segmented the cases."""

    def segment(engine: Engine, batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        engine.state.batch = decollate_batch({**batch})
        return [to_labels({**item, "pred": logits(batch["image"])[0]}) for item in engine.state.batch]

    engine, choice = Engine(segment), ComponentChoice(NAMES, output_dir=folder)
    choice.attach(engine)
    engine.run(cases)
    return choice


def test_rules_are_chosen_where_they_help_alone(tmp_path: Path) -> None:
    cases = [case(True), case(False)]
    choice = chosen_on(cases, tmp_path)
    assert choice.write() == {"liver": "largest component"}
    options = yaml.safe_load((tmp_path / "postprocessing.yaml").read_text())
    assert options == {"keep_largest": ["liver"], "remove_smaller": {}}
    item = to_labels({**cases[0], "pred": logits(cases[0]["image"])[0], "reference": cases[0]["reference"][0]})
    cleaned = CleanComponentsd("pred", NAMES, **options)(item)["pred"]
    assert torch.equal(cleaned.as_tensor().float(), cases[0]["reference"][0].as_tensor())
    rows = (tmp_path / "postprocessing.csv").read_text().splitlines()
    assert rows[1].endswith("largest component")
    assert rows[2].startswith("vessel,1.0000,0.6667,")
    assert rows[2].endswith("as it is")


def test_rule_that_harms_a_case_is_not_chosen() -> None:
    assert best_rule(np.array([[0.5, 0.9], [0.8, 0.81]])) == 1
    assert best_rule(np.array([[0.5, 0.9], [0.8, 0.79]])) == 0
    assert best_rule(np.array([[0.5, 0.5005]])) == 0
    assert best_rule(np.array([[np.nan, np.nan]])) == 0


def test_no_case(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no case to choose on"):
        ComponentChoice(NAMES, output_dir=tmp_path).write()


def test_class_that_is_not_labelled_in_a_case_is_judged_on_the_others(tmp_path: Path) -> None:
    unlabelled = {**case(False), "labelled": torch.tensor([[False, True]])}
    unlabelled["reference"] = unlabelled["reference"] * 0
    assert chosen_on([case(True), unlabelled], tmp_path).write() == {"liver": "largest component"}
