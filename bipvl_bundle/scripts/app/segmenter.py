"""Segmentation of a volume in changing words, by a bundle."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from scripts.app.windows import Predict, Progress, Windows, count_windows
from scripts.data.components import CleanComponentsd
from scripts.data.datalist import case_name
from scripts.data.native_labels import NativeLabelsd
from scripts.data.nifti import UnusableFile, load_ras, read_header
from scripts.geometry.grid import voxel_ml
from scripts.inference.averaging import AveragingInferer
from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.report.kept_cases import one_map
from scripts.words.requested import requested_table
from scripts.words.table import ConceptTable

Row = Sequence[str]
"""Name of a class and its sentences, in the order of the concepts."""


@dataclass(frozen=True)
class Limits:
    """What a request may take: voxels of the file, seconds, classes, letters of a cell of the table, memory."""

    voxels: int = 150_000_000
    seconds: float = 600.0
    classes: int = 40
    letters: int = 600
    kept_bytes: int = 1_500_000_000  # of the features of the last volume


@dataclass(frozen=True)
class Segmented:
    """A volume with a label map, in RAS orientation.

    Attributes:
        case: its name.
        image: first channel.  # H x W x D
        labels: numbers of ``classes`` from 1 on.  # H x W x D
        classes: in label order.
        table: the words that it was segmented in.
        affine: voxels to mm.
        seconds: that it took.
    """

    case: str
    image: NDArray[np.float32]
    labels: NDArray[np.integer]
    classes: tuple[str, ...]
    table: ConceptTable
    affine: NDArray[np.float64]
    seconds: float

    @property
    def voxel_ml(self) -> float:
        return voxel_ml(self.affine)

    @property
    def spacing(self) -> NDArray[np.float64]:
        return np.linalg.norm(self.affine[:3, :3], axis=0)


class WordSegmenter:
    """Segments volumes by the inference of a bundle, each request in words of its own.

    No words of a request stay in it: they are read by a view of the network that shares its weights. For one request at
    a time.

    Args:
        bundle: its folder.
        limits: of a request.
        options: of its inference.yaml, such as ``device``.

    Raises:
        FileNotFoundError: the folder is no bundle, or has no trained model.
        ValueError: its network reads no words.
    """

    def __init__(self, bundle: str | Path, limits: Limits | None = None, **options: Any) -> None:
        root = Path(bundle).expanduser().absolute()
        config = root / "configs/inference.yaml"
        if not config.is_file():
            raise FileNotFoundError(f"'{root}' is no bundle: it has no configs/inference.yaml.")
        self.limits = limits or Limits()
        self._last: dict[tuple[str, int], tuple[dict[str, Any], Tensor]] = {}
        with tempfile.TemporaryDirectory() as scratch:
            nothing = Path(scratch) / "nothing.nii"  # of which inference.yaml wants a list
            nothing.touch()
            places = {
                "bundle_root": str(root),
                "output_dir": scratch,
                "dataset_dir": str(nothing),
                "other_images": True,
            }
            workflow = ConfigWorkflow(str(config), logging_file=False, **{**places, **options})
            workflow.initialize()
            get = workflow.parser.get_parsed_content
            self.network: BiPVLSeg = get("network").eval()
            self.table: ConceptTable = get("concept_table")
            self.preprocess, self.inferer = get("preprocessing"), get("inferer")
            self.averaging: AveragingInferer = self.inferer.inferer
            self.device: torch.device = torch.device(get("device"))
            steps = get("postprocessing").transforms
            self.to_labels, self.clean = (_only(steps, kind) for kind in (NativeLabelsd, CleanComponentsd))
            self.roi_size, self.overlap = get("roi_size"), float(get("sw_overlap"))
        if not isinstance(self.network, BiPVLSeg):
            raise ValueError(f"A {type(self.network).__name__} reads no words; give the bundle of a BiPVL-Seg.")

    @property
    def rows(self) -> list[list[str]]:
        """The words of the bundle, a row per class."""
        return [[name, *row] for name, row in zip(self.table.classes, self.table.sentences, strict=True)]

    def table_of(self, rows: Sequence[Row]) -> ConceptTable:
        """Return the table of edited rows.

        Raises:
            ValueError: too many classes or letters, no class, a class without a name or twice, an empty sentence, or
                two classes with the same words.
        """
        cells = [[str(cell or "").strip() for cell in row] for row in rows]
        cells = [row for row in cells if any(row)]
        if len(cells) > self.limits.classes:
            raise ValueError(f"There are {len(cells)} classes; at most {self.limits.classes} can be asked for.")
        words: dict[str, dict[str, str]] = {}
        for row in cells:
            if not row[0]:
                raise ValueError(f"The row with '{next(filter(None, row))[:40]}' has no name for its class.")
            if row[0] in words:
                raise ValueError(f"The class '{row[0]}' is there twice.")
            words[row[0]] = dict(zip(self.table.concepts, row[1:], strict=True))
            for concept, sentence in words[row[0]].items():
                if len(sentence) > self.limits.letters:
                    raise ValueError(f"'{concept}' of '{row[0]}' has more than {self.limits.letters} letters.")
                if not sentence:
                    raise ValueError(f"'{concept}' of '{row[0]}' is empty: write a sentence, or remove the class.")
        if not words:
            raise ValueError("There is no class to segment: describe one at least.")
        return requested_table(self.table, words, list(words))

    def segment(
        self, image: str | Path, table: ConceptTable | None = None, progress: Progress | None = None
    ) -> Segmented:
        """Segment a NIfTI file in the words of a table, by default the bundle's.

        Raises:
            ValueError: the file is too large or cannot be read, or the network has no channel for these classes.
            TimeoutError: it took longer than the limit.
        """
        table = table or self.table
        self._check(Path(image))
        begun = time.monotonic()
        network = self.network if table is self.table else self.network.with_concepts(table)
        with torch.inference_mode():
            case, logits = self._logits(Path(image), network, progress)
        if progress is not None:
            progress(0.95, "back to the grid of the file")
        found = self.to_labels({**case, "pred": logits.cpu()})
        labels = self.clean.for_classes(table.classes)(found)["pred"]
        return self._oriented(Path(image), labels, table, begun)

    def _logits(self, path: Path, network: BiPVLSeg, progress: Progress | None) -> tuple[dict[str, Any], Tensor]:
        """Return the preprocessed case and its logits, C x H x W x D.

        Where kernels are made of words, a sliding window over the features gives the same logits as one over logits,
        which are linear in them. The features of the last volume are kept: in other words it takes no time. Where
        several looks are averaged, probabilities are, and nothing is kept.
        """
        if self.averaging.looks > 1:
            return self._average(path, network, progress)
        head, kernels = network.word_head, network.class_kernels()
        if head is None or kernels is None:
            case, found = self._slide(path, network, progress)
            return case, found[0]
        key = (str(path), path.stat().st_mtime_ns)
        case, features = self._last.get(key) or self._slide(path, network.features, progress)
        fits = features.numel() * features.element_size() <= self.limits.kept_bytes
        self._last = {key: (case, features)} if fits else {}
        return case, head(features, kernels)[0]

    def _slide(self, path: Path, predict: Predict, progress: Progress | None) -> tuple[dict[str, Any], Tensor]:
        case = self.preprocess({"image": str(path)})
        count = count_windows(case["image"].shape[1:], self.roi_size, self.overlap)
        windows = Windows(predict, self.limits.seconds, progress, count)
        return case, self.inferer(case["image"][None].to(self.device), windows).as_subclass(Tensor)

    def _average(self, path: Path, network: BiPVLSeg, progress: Progress | None) -> tuple[dict[str, Any], Tensor]:
        """Return the preprocessed case and what the bundle's looks at it give on average, C x H x W x D."""
        case = self.preprocess({"image": str(path)})
        count = self.averaging.looks * count_windows(case["image"].shape[1:], self.roi_size, self.overlap)
        windows = Windows(network, self.limits.seconds, progress, count)
        averaging, look = copy.copy(self.averaging), self.averaging.inferer

        def counted(image: Tensor, member: Predict, *args: Any, **kwargs: Any) -> Any:
            windows.predict = member
            return look(image, windows, *args, **kwargs)

        averaging.inferer = counted
        logits = averaging(case["image"][None].to(self.device), network)
        self.averaging.members = averaging.members  # read once
        return case, logits.as_subclass(Tensor)[0]

    def _check(self, path: Path) -> None:
        try:
            shape = read_header(path).get_data_shape()
        except (OSError, UnusableFile) as error:
            raise ValueError(f"'{path.name}' cannot be read as a NIfTI file: {error}") from error
        if len(shape) not in (3, 4) or math.prod(shape) > self.limits.voxels:
            raise ValueError(
                f"'{path.name}' has the shape {shape}; expected a volume of at most {self.limits.voxels / 1e6:.0f} "
                "million voxels. Crop it first."
            )

    def _oriented(self, path: Path, labels: MetaTensor, table: ConceptTable, begun: float) -> Segmented:
        written = nib.Nifti1Image(one_map(labels.cpu().numpy()), labels.affine.cpu().numpy())
        found = cast(nib.Nifti1Image, nib.as_closest_canonical(written))
        image = load_ras(path)
        array = np.asarray(image.dataobj, dtype=np.float32)
        return Segmented(
            case=case_name(path.name),
            image=array if array.ndim == 3 else array[..., 0],
            labels=np.asarray(found.dataobj),
            classes=table.classes,
            table=table,
            affine=np.asarray(found.affine),
            seconds=time.monotonic() - begun,
        )


def _only(steps: Sequence[Any], kind: type) -> Any:
    """Return the one step of a kind."""
    (found,) = (step for step in steps if isinstance(step, kind))
    return found
