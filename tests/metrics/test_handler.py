from __future__ import annotations

import csv
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted
from torch import Tensor, nn

import scripts.metrics.handler as handler_module
from scripts.metrics import SegmentationMetricsHandler

CLASSES = ("cube", "slab")
THICK = torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0], dtype=torch.float64))


def label_map(up: int = 0, shape: tuple[int, int, int] = (16, 16, 20), slab: bool = True) -> Tensor:
    """A 10^3 cube of class 1, moved up by some slices, beside a slab of class 2."""
    volume = torch.zeros(1, *shape)
    volume[0, 3:13, 3:13, 2 + up : 12 + up] = 1
    if slab:
        volume[0, 1, 3:13, 2:12] = 2
    return volume


def item(pred: Tensor, label: Tensor, affine: Tensor = THICK, **extra: Any) -> dict[str, Any]:
    meta = {"filename_or_obj": extra.pop("file", "/data/case.nii.gz")}
    return {
        "image": MetaTensor(pred, affine=affine, meta=dict(meta)),
        "label": MetaTensor(label, affine=affine, meta=dict(meta)),
        **extra,
    }


def evaluate(
    items: Sequence[dict[str, Any]], handler: SegmentationMetricsHandler, **kwargs: Any
) -> SupervisedEvaluator:
    """An evaluator whose network hands the image through as its prediction."""
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(items, batch_size=kwargs.pop("batch_size", 1)),
        network=nn.Identity(),
        key_val_metric={"mean_dice": handler},
        **kwargs,
    )
    evaluator.logger.disabled = True
    evaluator.run()
    return evaluator


def scored(handler: SegmentationMetricsHandler, pred: Tensor, label: Tensor) -> dict[str, float]:
    handler.reset()
    handler.update({"pred": pred, "label": label})
    return {"mean_dice": handler.compute(), **handler._scalars}


def test_evaluation_of_two_cases_of_different_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = SegmentationMetricsHandler(CLASSES, output_dir=tmp_path / "eval")
    items = [
        item(label_map(3), label_map(), file="/data/a.nii.gz"),
        item(label_map(shape=(18, 16, 24), slab=False), label_map(shape=(18, 16, 24)), file="/data/b.nii.gz"),
    ]
    evaluator = evaluate(items, handler)
    metrics = evaluator.state.metrics
    # cube: 0.7 and 1, 15 and 0 mm; slab: found in the first case, missed in the second
    expected = {
        "mean_dice": (0.85 + 0.5) / 2,
        "dice_cube": 0.85,
        "dice_slab": 0.5,
        "hd95_mm_cube": 7.5,
        "hd95_mm_slab": 0.0,
        "mean_hd95_mm": 3.75,
        "nsd_slab": 0.5,
        "missed": 1,
        "spurious": 0,
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected)
    assert evaluator.state.best_metric == pytest.approx(expected["mean_dice"])
    with (tmp_path / "eval" / "metrics_per_case.csv").open() as file:
        rows = [(row["case"], row["class"], float(row["hd95_mm"]), row["missed"]) for row in csv.DictReader(file)]
    assert rows[0] == ("a", "cube", 15.0, "False")
    assert rows[3][:2] == ("b", "slab")
    assert rows[3][3] == "True"
    printed = capsys.readouterr().out
    assert "HD95 mm" in printed
    assert "metrics_summary.csv" in printed


def test_surface_false_computes_dice_alone() -> None:
    evaluator = evaluate([item(label_map(3), label_map())], SegmentationMetricsHandler(CLASSES, surface=False))
    assert set(evaluator.state.metrics) == {"mean_dice", "dice_cube", "dice_slab", "missed", "spurious"}
    assert evaluator.state.metrics["mean_dice"] == pytest.approx((0.7 + 1.0) / 2)


def test_a_second_epoch_starts_afresh() -> None:
    items = [item(label_map(3), label_map())]
    evaluator = evaluate(items, SegmentationMetricsHandler(CLASSES))
    first = dict(evaluator.state.metrics)
    items[0] = item(label_map(), label_map())
    evaluator.run(2)
    assert first["dice_cube"] == pytest.approx(0.7)
    assert evaluator.state.metrics["dice_cube"] == 1.0


def test_scores_follow_postprocessing_and_batches() -> None:
    logits = torch.cat([label_map(3, slab=False) == value for value in (0, 1, 2)]).float()
    items = [item(logits, label_map()), item(logits, label_map())]
    evaluator = evaluate(
        items,
        SegmentationMetricsHandler(CLASSES),
        postprocessing=AsDiscreted(keys="pred", argmax=True),
        batch_size=2,
    )
    assert evaluator.state.metrics["hd95_mm_cube"] == pytest.approx(15.0)
    assert evaluator.state.metrics["missed"] == 2


@pytest.mark.gpu
def test_a_prediction_on_a_gpu_is_scored_against_a_reference_from_disk() -> None:
    pred, label = MetaTensor(label_map(1), affine=THICK), MetaTensor(label_map(), affine=THICK)
    handler = SegmentationMetricsHandler(CLASSES)
    assert scored(handler, pred.cuda(), label) == pytest.approx(scored(handler, pred, label))


def test_overlapping_regions_are_scored_by_channel() -> None:
    whole, core = (label_map() > 0), (label_map() == 1)
    handler = SegmentationMetricsHandler(["whole", "core"], softmax=False)
    metrics = scored(handler, MetaTensor(torch.cat([whole, whole])), MetaTensor(torch.cat([whole, core])))
    assert metrics["dice_whole"] == 1.0
    assert metrics["dice_core"] == pytest.approx(2 * 1000 / (1000 + 1100))


def test_millimetres_come_from_the_affine_of_the_reference_however_it_is_oriented() -> None:
    angle = math.radians(20)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turn[:3, 3] = torch.tensor([-90.0, 40.0, 7.0])
    flip = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    handler = SegmentationMetricsHandler(CLASSES)
    expected = scored(handler, MetaTensor(label_map(3), affine=THICK), MetaTensor(label_map(), affine=THICK))
    assert expected["hd95_mm_cube"] == pytest.approx(15.0)
    for affine in (turn @ THICK, flip @ THICK, (turn @ THICK).float()):
        moved = scored(handler, label_map(3), MetaTensor(label_map(), affine=affine))
        assert moved == pytest.approx(expected, rel=1e-5)


def test_permuted_axes_leave_the_scores() -> None:
    handler = SegmentationMetricsHandler(CLASSES)
    expected = scored(handler, label_map(3), MetaTensor(label_map(), affine=THICK))
    pred, label = (volume.permute(0, 3, 1, 2) for volume in (label_map(3), label_map()))
    affine = THICK[:, [2, 0, 1, 3]]
    assert scored(handler, pred, MetaTensor(label, affine=affine)) == pytest.approx(expected)


def test_nsd_tolerance_is_in_millimetres() -> None:
    lower, upper = torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 8, 8)
    lower[..., 2], upper[..., 3] = 1, 1
    for tolerance, expected in ((4.9, 0.0), (5.0, 1.0)):
        handler = SegmentationMetricsHandler(["plate"], nsd_tolerance=tolerance)
        assert scored(handler, upper, MetaTensor(lower, affine=THICK))["nsd_plate"] == expected


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"case": "patient 7"}, "patient 7"),
        ({"file": "/x/seg.nii.gz"}, "/x/seg.nii.gz"),
        ({"file": ""}, "case_0_0"),
    ],
)
def test_cases_are_named_by_key_then_file_then_number(extra: dict[str, str], expected: str) -> None:
    handler = SegmentationMetricsHandler(CLASSES, surface=False)
    evaluate([item(label_map(), label_map(), **extra)], handler)
    assert [case for case, _ in handler._cases] == [expected]


def test_handler_is_built_from_yaml_alone(tmp_path: Path) -> None:
    config = {
        "classes": ["cube", "slab"],
        "metric": {
            "_target_": "scripts.metrics.SegmentationMetricsHandler",
            "class_names": "$tuple(@classes)",
            "surface": False,
            "output_dir": "$None",
        },
    }
    handler = ConfigParser(config).get_parsed_content("metric")
    assert isinstance(handler, SegmentationMetricsHandler)
    assert handler.class_names == ["cube", "slab"]


def test_nothing_to_score_gives_a_key_metric_that_can_be_beaten() -> None:
    empty = torch.zeros(1, 4, 4, 4)
    items = [item(empty, empty)]
    evaluator = evaluate(items, SegmentationMetricsHandler(CLASSES))
    assert evaluator.state.best_metric == 0.0
    items[0] = item(label_map(3), label_map())
    evaluator.run(2)
    assert evaluator.state.best_metric_epoch == 2


def test_another_shape_is_refused_by_the_name_of_the_case() -> None:
    with pytest.raises(ValueError, match=r"Case 'p7': the prediction's shape \(16, 16, 19\).*Invertd"):
        SegmentationMetricsHandler(CLASSES).update(
            {"pred": label_map()[..., :-1], "label": MetaTensor(label_map()), "case": "p7"}
        )


@pytest.mark.parametrize(("shift", "refused"), [(0.001, False), (0.5, True)])
def test_another_affine_is_refused_beyond_rounding(shift: float, refused: bool) -> None:
    moved = THICK.clone()
    moved[0, 3] += shift
    pair = {"pred": MetaTensor(label_map(), affine=moved), "label": MetaTensor(label_map(), affine=THICK)}
    handler = SegmentationMetricsHandler(CLASSES)
    if refused:
        with pytest.raises(ValueError, match=r"Case 'case_0_0': the affines.*up to 0.5 mm apart"):
            handler.update(pair)
    else:
        handler.update(pair)


@pytest.mark.parametrize(
    ("pred", "label", "message"),
    [
        (label_map(), label_map() * 2, r"reference of case 'case_0_0' holds the values \[4.0\], but 0 to 2"),
        (label_map() / 2, label_map(), r"prediction of case 'case_0_0' holds the values \[0.5\]"),
        (label_map() * math.nan, label_map(), r"prediction of case 'case_0_0' holds the values \[nan"),
        (torch.cat([label_map()] * 3), label_map(), "prediction of case 'case_0_0' has 3 channels.*arg-max"),
    ],
)
def test_values_and_channels_outside_the_classes_are_refused(pred: Tensor, label: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationMetricsHandler(CLASSES).update({"pred": pred, "label": MetaTensor(label)})


def test_regions_need_one_binary_channel_each() -> None:
    handler = SegmentationMetricsHandler(CLASSES, softmax=False, surface=False)
    with pytest.raises(ValueError, match="has 1 channels, but there are 2 regions"):
        handler.update({"pred": label_map(), "label": label_map()})
    with pytest.raises(ValueError, match=r"values \[2.0\], but 0 to 1 are expected"):
        handler.update({"pred": label_map().repeat(2, 1, 1, 1), "label": label_map().repeat(2, 1, 1, 1)})


def test_reference_without_affine_or_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="Case 'case_0_0': the reference is a Tensor without an affine"):
        SegmentationMetricsHandler(CLASSES).update({"pred": label_map(), "label": label_map()})
    with pytest.raises(ValueError, match=r"no tensor under 'label', only under \['pred'\]"):
        SegmentationMetricsHandler(CLASSES).update({"pred": label_map(), "label": None})


def test_undecollated_output_is_refused() -> None:
    with pytest.raises(TypeError, match="leave the evaluator's decollate at True"):
        evaluate([item(label_map(), label_map())], SegmentationMetricsHandler(CLASSES), decollate=False)


@pytest.mark.parametrize("names", [[], ["liver", "liver"]])
def test_class_names_must_be_distinct(names: list[str]) -> None:
    with pytest.raises(ValueError, match="class_names must be distinct and at least one"):
        SegmentationMetricsHandler(names)


def test_unwritable_output_is_refused_before_the_first_case(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    handler = SegmentationMetricsHandler(CLASSES, output_dir=tmp_path / "file")
    with pytest.raises(OSError, match="Cannot write to the output folder"):
        evaluate([item(label_map(), label_map())], handler)
    assert handler._cases == []


def test_cases_of_all_ranks_count_and_repeated_ones_once(monkeypatch: pytest.MonkeyPatch) -> None:
    label = MetaTensor(label_map(), affine=THICK)
    handlers = [SegmentationMetricsHandler(CLASSES) for _ in range(3)]
    handlers[0].update({"pred": label_map(), "label": label, "case": "perfect"})
    handlers[1].update({"pred": label_map(3, slab=False), "label": label, "case": "slab missed"})
    # A GPU need not segment a case twice alike.
    handlers[2].update({"pred": label_map(2, slab=False), "label": label, "case": "slab missed"})
    repeated = [pickle.loads(pickle.dumps(handlers[1]._cases)), handlers[2]._cases]
    ranks = [handlers[0]._cases, handlers[1]._cases, *repeated, []]
    monkeypatch.setattr(handler_module.idist, "all_gather", lambda held: ranks if isinstance(held, list) else [held])
    handlers[0].compute()
    assert handlers[0]._scalars["missed"] == 1
    assert handlers[0]._scalars["dice_cube"] == pytest.approx((1.0 + 0.7) / 2)


@pytest.mark.slow
def test_two_processes_reduce_alike_and_one_writes(tmp_path: Path) -> None:
    worker = Path(__file__).with_name("two_rank_worker.py")
    path = str(Path(handler_module.__file__).parents[2])
    workers = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(tmp_path / "store"), str(tmp_path / "eval")],
            env={"PYTHONPATH": path, "PATH": "", "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=300) for worker in workers]
    results = [json.loads(stderr.splitlines()[-1]) for _, stderr in outputs]
    assert ["HD95 mm" in stdout for stdout, _ in outputs] == [True, False]
    for rank, result in enumerate(results):
        assert result.pop("rank") == rank
        assert result["mean_dice"] == pytest.approx((1.0 + 0.75 + 0.0) / 3)
        assert result["missed"] == 1
    assert results[0] == results[1]
    with (tmp_path / "eval" / "metrics_per_case.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["one", "three", "two"]


class TestSeveralDataSets:
    def test_only_labelled_classes_are_scored_and_each_data_set_has_its_mean(self) -> None:
        both = item(label_map(), label_map(), case="one", data_set="a", labelled=torch.tensor([True, True]))
        no_slab = label_map(slab=False)
        cubes = item(label_map(up=2), no_slab, case="two", data_set="b", labelled=torch.tensor([True, False]))
        metrics = evaluate([both, cubes], SegmentationMetricsHandler(CLASSES, surface=False, pred_key="image"))
        found = metrics.state.metrics
        assert found["spurious"] == 0
        assert found["dice_slab"] == 1
        assert found["mean_dice_a"] == 1
        assert found["mean_dice_b"] == pytest.approx(0.8)
