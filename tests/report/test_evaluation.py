from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tests.report.conftest import scores

from scripts.report.evaluation import EvaluationPage


@pytest.fixture
def handler(make_network, table, tmp_path: Path, labels: np.ndarray) -> EvaluationPage:
    """Of one case, whose preprocessing pads it to 64 x 32 x 32 voxels."""
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    nib.save(nib.Nifti1Image(labels * 9.0, affine.numpy()), tmp_path / "a.nii.gz")
    item = {"case": "a", "image": str(tmp_path / "a.nii.gz"), "reference": str(tmp_path / "a.nii.gz")}

    def transform(case: dict) -> dict:
        image = MetaTensor(torch.from_numpy(labels * 1.0).float()[None], affine=affine)
        return {**case, "image": image, "label": MetaTensor(torch.from_numpy(labels)[None], affine=affine)}

    return EvaluationPage(
        make_network(head="words").eval(),
        [item],
        transform,
        table,
        folder=tmp_path / "metrics",
        run_dir=tmp_path,
        roi_size=(64, 32, 32),
        facts={"title": "phantom", "split": "test", "fold": 0},
    )


def evaluate(handler: EvaluationPage, labels: np.ndarray) -> None:
    tensor = MetaTensor(torch.from_numpy(labels)[None], affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    state = SimpleNamespace(batch=[{"case": "a", "image": tensor, "reference": tensor}], output=[{"pred": tensor}])
    engine = SimpleNamespace(state=state)
    handler.start(engine)
    handler.keep(engine)
    handler.folder.mkdir(exist_ok=True)
    scores(handler.folder, {"a": 1.0}, handler.concepts.classes)
    handler.write(engine)


def test_evaluation_leaves_page_label_maps_and_volumes(handler: EvaluationPage, labels: np.ndarray) -> None:
    evaluate(handler, labels)
    text = (handler.folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>phantom: test</h1>" in text
    for heading in ("What was run", "Sentences and alignment", "Where each sentence is looked at"):
        assert f">{heading}</h2>" in text
    np.testing.assert_array_equal(nib.load(handler.folder / "cases/a_seg.nii.gz").dataobj, labels)
    rows = list(csv.DictReader((handler.folder / "volumes.csv").read_text().splitlines()))
    assert rows[0]["volume_ml"] == f"{96 * 0.024:.4f}"
    facts = json.loads((handler.folder / "evaluation.json").read_text())
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["fold"] == 0
    maps = nib.load(handler.folder / "report_files/attention_stage1.nii.gz")
    assert maps.shape == (16, 8, 8, 6)


def test_failing_page_fails_no_evaluation(
    handler: EvaluationPage, labels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    handler.transform = lambda case: 1 / 0
    with caplog.at_level(logging.WARNING):
        evaluate(handler, labels)
    assert "What the model makes of its words cannot be shown: ZeroDivisionError" in caplog.text
    assert (handler.folder / "report.html").is_file()
    caplog.clear()
    (handler.folder / "report.html").unlink()
    (handler.folder / "report.html").mkdir()
    with caplog.at_level(logging.WARNING):
        evaluate(handler, labels)
    assert "The page of this evaluation could not be written" in caplog.text
    assert (handler.folder / "metrics_per_case.csv").is_file()
