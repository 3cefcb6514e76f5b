"""Ignite metric that scores a validation or evaluation in millimetres."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.data import MetaTensor
from torch import Tensor

from scripts.geometry.grid import corner_distance
from scripts.metrics.report import METRICS, MetricsReport, check_output_folder
from scripts.metrics.scores import NOT_SCORED, ClassScore, case_metrics

# Headers keep affines in single precision, and resampling back accumulates rounding: grids closer than this
# fraction of a voxel are one grid.
GRID_TOLERANCE_VOXELS = 0.05

logger = logging.getLogger(__name__)


class SegmentationMetricsHandler(Metric):
    """Ignite metric that computes DSC, HD95 and NSD of every case on the grid of its reference.

    Made for `monai.engines.SupervisedEvaluator` as its `key_val_metric`, behind decollate and postprocessing:

        key_val_metric:
            mean_dice:
                _target_: scripts.metrics.SegmentationMetricsHandler
                class_names: [spleen, liver]
                output_dir: eval

    At the end of an epoch `engine.state.metrics` holds, as Python floats, the mean DSC under the name given
    (a mean over classes of means over cases) and everything in `MetricsReport.scalars`. With `output_dir`
    rank 0 also writes the two CSV files of `MetricsReport` and prints its table. Under distributed training
    all ranks see the scores of all cases; a case that a sampler repeated on two ranks counts once.

    Of a case that says which classes are labelled in it, the others are not scored. Where cases name their data set,
    the mean DSC of each stands in the metrics too.

    With ``goes_on`` the cases of the epochs before count too.

    Where no case holds any class, the mean DSC is logged and given as 0: a NaN could never be beaten, and a
    model saver would keep the first checkpoint for ever.

    Deviations: MONAI's Hausdorff handler measures in voxels and drops missed classes; hence this one.

    Args:
        class_names: the N foreground classes, in the order of their labels 1 ... N or of their channels.
        softmax: True for label maps (1 x H x W x D, values 0 ... N), False for overlapping regions
            (N x H x W x D, values 0 and 1).
        surface: False computes DSC alone, which is fast: for validation during training.
        nsd_tolerance: in millimetres.
        use_subvoxels: weigh the NSD by surface area, see `surface_metrics`.
        output_dir: folder of the CSV files; None writes and prints nothing.
        pred_key: key of the prediction in an item of `engine.state.output`.
        label_key: key of the reference; its affine gives the size of a voxel.
        case_key: key of the case's identifier in an item of the batch; without it, the file name in the meta
            data of reference, prediction or image.
        labelled_key: key of the mask of the N classes that says which the reference shows; without it, all.
        data_set_key: key of the name of the case's data set, if there are several.

    Raises:
        ValueError: there is no class or one twice; or, for a case that the message names, prediction and
            reference differ in shape or grid, hold values outside the classes, or carry no affine.
        TypeError: the engine's output is not a list of dictionaries.
        OSError: `output_dir` cannot be written to (said before the first case is scored).
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        softmax: bool = True,
        surface: bool = True,
        nsd_tolerance: float = 2.0,
        use_subvoxels: bool = False,
        output_dir: str | Path | None = None,
        pred_key: str = "pred",
        label_key: str = "label",
        case_key: str = "case",
        labelled_key: str = "labelled",
        data_set_key: str = "data_set",
    ) -> None:
        self.class_names = [str(name) for name in class_names]
        if not self.class_names or len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"class_names must be distinct and at least one, but are {self.class_names}.")
        self.softmax = softmax
        self.surface = surface
        self.nsd_tolerance = nsd_tolerance
        self.use_subvoxels = use_subvoxels
        self.output_dir = output_dir
        self.pred_key = pred_key
        self.label_key = label_key
        self.case_key = case_key
        self.labelled_key = labelled_key
        self.data_set_key = data_set_key
        self.goes_on = False
        super().__init__()

    def attach(self, engine: Engine, name: str, *args: Any, **kwargs: Any) -> None:
        super().attach(engine, name, *args, **kwargs)
        engine.add_event_handler(Events.STARTED, self._check_output)

    def reset(self) -> None:
        if self.goes_on:  # after a case that failed
            return
        self._cases: list[tuple[str, list[ClassScore]]] = []
        self._data_sets: dict[str, str | None] = {}
        self._scalars: dict[str, float] = {}

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        output, batch = engine.state.output, engine.state.batch
        if not isinstance(output, list) or not all(isinstance(item, Mapping) for item in output):
            raise TypeError(
                "SegmentationMetricsHandler scores a list of dictionaries, one a case, but the engine's "
                f"output is a {type(output).__name__}; leave the evaluator's decollate at True."
            )
        sources = batch if isinstance(batch, list) else [{}] * len(output)
        for source, item in zip(sources, output, strict=True):
            self.update({**source, **item})

    def update(self, output: Mapping[str, Any]) -> None:
        """Score one case: a dictionary with prediction, reference and the rest of the item."""
        case = self._case_id(output)
        prediction, reference = (self._tensor(output, key, case) for key in (self.pred_key, self.label_key))
        reference = reference.to(prediction.device)  # it comes from disk, and no preprocessing has moved it
        _check_grids(prediction, reference, case)
        scores = case_metrics(
            self._masks(prediction, f"prediction of case '{case}'"),
            self._masks(reference, f"reference of case '{case}'"),
            _spacing(reference, case) if self.surface else None,
            nsd_tolerance=self.nsd_tolerance,
            use_subvoxels=self.use_subvoxels,
        )
        labelled = output.get(self.labelled_key, [True] * len(scores))
        scores = [score if shown else NOT_SCORED for score, shown in zip(scores, labelled, strict=True)]
        self._cases.append((case, scores))
        self._data_sets[case] = output.get(self.data_set_key)

    def compute(self) -> float:
        cases, metrics = _gather(self._cases), METRICS if self.surface else ("dice",)
        report = MetricsReport(self.class_names, cases)
        self._scalars = report.scalars(metrics) | self._by_data_set(cases)
        if self.output_dir is not None and cases and idist.get_rank() == 0:
            paths = report.write(self.output_dir)
            print("", report.table(), *(f"written: {path}" for path in paths), sep="\n", flush=True)
        mean_dice = self._scalars.pop("mean_dice")
        if math.isnan(mean_dice):
            logger.warning("No case holds any of the classes %s: the mean DSC is set to 0.", self.class_names)
            return 0.0
        return mean_dice

    def _by_data_set(self, cases: list[tuple[str, list[ClassScore]]]) -> dict[str, float]:
        """Return the mean DSC of the cases of each data set, where they are of several."""
        owners: dict[str, str | None] = {}
        for part in cast("list[dict[str, str | None]]", idist.all_gather(self._data_sets)):
            owners |= part
        names = sorted({name for name in owners.values() if name is not None})
        parts = {name: [pair for pair in cases if owners[pair[0]] == name] for name in names}
        return {
            f"mean_dice_{name}": MetricsReport(self.class_names, part).scalars(("dice",))["mean_dice"]
            for name, part in parts.items()
        }

    def completed(self, engine: Engine, name: str) -> None:
        super().completed(engine, name)
        engine.state.metrics.update(self._scalars)

    def _check_output(self) -> None:
        if self.output_dir is not None and idist.get_rank() == 0:
            check_output_folder(self.output_dir)

    def _case_id(self, item: Mapping[str, Any]) -> str:
        if self.case_key in item:
            return str(item[self.case_key])
        for key in (self.label_key, self.pred_key, "image"):
            name = getattr(item.get(key), "meta", {}).get("filename_or_obj")
            if name:
                return str(name)
        return f"case_{idist.get_rank()}_{len(self._cases)}"

    @staticmethod
    def _tensor(item: Mapping[str, Any], key: str, case: str) -> Tensor:
        if not isinstance(item.get(key), Tensor):
            held = sorted(name for name, value in item.items() if isinstance(value, Tensor))
            raise ValueError(
                f"Case '{case}' holds no tensor under '{key}', only under {held}; evaluate labelled "
                "cases, and name the keys by pred_key and label_key."
            )
        return item[key]

    def _masks(self, data: Tensor, what: str) -> Iterator[Tensor]:
        """Check a label map or region masks, then yield one boolean mask per class."""
        data = data.as_tensor() if isinstance(data, MetaTensor) else data
        count = len(self.class_names)
        channels, top = (1, count) if self.softmax else (count, 1)
        if data.shape[0] != channels:
            expected = "a label map has 1: take the arg-max" if self.softmax else f"there are {count} regions"
            raise ValueError(f"The {what} has {data.shape[0]} channels, but {expected}.")
        if not ((data >= 0) & (data <= top) & (data == data.to(torch.int64))).all():
            foreign = [value for value in torch.unique(data).tolist() if value not in range(top + 1)]
            raise ValueError(
                f"The {what} holds the values {foreign[:5]}, but 0 to {top} are expected for the classes "
                f"{self.class_names}; map labels to classes, and resample them by nearest neighbour."
            )
        return (data[0] == i + 1 if self.softmax else data[i] == 1 for i in range(count))


def _check_grids(prediction: Tensor, reference: Tensor, case: str) -> None:
    if prediction.shape[1:] != reference.shape[1:]:
        raise ValueError(
            f"Case '{case}': the prediction's shape {tuple(prediction.shape[1:])} is not the reference's "
            f"{tuple(reference.shape[1:])}; invert the preprocessing of the prediction (Invertd)."
        )
    if not (isinstance(prediction, MetaTensor) and isinstance(reference, MetaTensor)):
        return
    shift = corner_distance(prediction.affine.cpu(), reference.affine.cpu(), reference.shape[1:])
    if shift > GRID_TOLERANCE_VOXELS * min(reference.pixdim.tolist()):
        raise ValueError(
            f"Case '{case}': the affines of prediction and reference place a voxel up to {shift:.3g} mm "
            "apart; invert the preprocessing of the prediction (Invertd), or correct the header of the label."
        )


def _spacing(reference: Tensor, case: str) -> list[float]:
    if not isinstance(reference, MetaTensor):
        raise ValueError(
            f"Case '{case}': the reference is a {type(reference).__name__} without an affine, which "
            "leaves its voxels without a size; load it with LoadImage and keep its meta data, or set "
            "surface to false."
        )
    return [float(length) for length in reference.pixdim]


def _gather(cases: list[tuple[str, list[ClassScore]]]) -> list[tuple[str, list[ClassScore]]]:
    """Gather the cases of all ranks; a case that several ranks scored (sampler padding) counts once."""
    ranks = cast("list[list[tuple[str, list[ClassScore]]]]", idist.all_gather(cases))
    gathered, known = list(ranks[0]), {case for case, _ in ranks[0]}
    for others in ranks[1:]:
        gathered += [(case, scores) for case, scores in others if case not in known]
        known |= {case for case, _ in others}
    return gathered
