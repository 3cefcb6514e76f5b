"""The command `segment_dicom`: from a DICOM series to a label map as NIfTI and DICOM SEG."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
from monai.bundle import ConfigWorkflow
from monai.utils import ensure_tuple

from scripts.configuration.files import read_config_file
from scripts.dicom.segmentation import make_segmentation
from scripts.dicom.series import Series, read_series, require_dicom
from scripts.words.table import ConceptTable

__all__ = ["segment_dicom"]

logger = logging.getLogger(__name__)

OWN_KEYS = ("dataset_dir", "predictions_dir")


def segment_dicom(
    series: str,
    output: str,
    config_file: str | Sequence[str] = ("configs/inference.yaml",),
    *,
    series_uid: str | None = None,
    acquisition: str | None = None,
    overwrite: bool = False,
    **overrides: Any,
) -> None:
    """Segment a CT or MR series; writes NAME_seg.nii.gz and NAME_seg.dcm, NAME being the series' folder name.

    Needs pydicom and highdicom. Both files have the geometry of the series; segment n of the SEG is label n. Of a
    series without UIDs, as after an anonymisation, there is the NIfTI file alone: a SEG must name what it belongs to.

    Args:
        series: folder with the files of one series
        output: folder for the two files
        config_file: inference.yaml, or a list of it and overlays, as for ``monai.bundle run``
        series_uid: SeriesInstanceUID of the series to take if the folder holds several
        acquisition: what tells the one to take of several in the series: an attribute and its value
        overwrite: replace the two files if they exist
        overrides: options as for ``monai.bundle run``, such as --ckpt_path
    """
    require_dicom()
    taken = [key for key in OWN_KEYS if key in overrides]
    if taken:
        raise ValueError(f"{' and '.join(taken)} cannot be given here: `series` and `output` take their place.")
    folder = Path(os.path.abspath(Path(str(series)).expanduser()))
    targets = [Path(str(output)).expanduser() / f"{folder.name}_seg{suffix}" for suffix in (".nii.gz", ".dcm")]
    existing = [str(path) for path in targets if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(f"{' and '.join(existing)} exist already; choose another `output`, or pass overwrite.")
    source = read_series(folder, series_uid, acquisition)
    if source.invented:
        logger.warning(
            "No file of '%s' has a %s: a DICOM SEG could not name its images, so that the label map is written as "
            "NIfTI alone.",
            folder,
            ", ".join(source.invented),
        )
        targets = targets[:1]
    with TemporaryDirectory() as scratch:
        results = [Path(scratch) / path.name for path in targets]
        workflow = _run(source, Path(scratch), config_file, overrides)
        _collect(Path(scratch) / "predictions", results[0])
        if not source.invented:
            _write_segmentation(source, results, workflow)
        targets[0].parent.mkdir(parents=True, exist_ok=True)
        for result, target in zip(results, targets, strict=True):
            shutil.move(result, target)
            print(target)


def _run(source: Series, scratch: Path, config_file: str | Sequence[str], overrides: dict[str, Any]) -> ConfigWorkflow:
    """Run the inference workflow on the series; writes its label map to `scratch`/predictions."""
    source.save(scratch / "series.nii.gz")
    paths = {"dataset_dir": str(scratch / "series.nii.gz"), "predictions_dir": str(scratch / "predictions")}
    files = [str(path) for path in ensure_tuple(config_file)]
    for path in files:
        read_config_file(path)
    workflow = ConfigWorkflow(files, workflow_type="inference", logging_file=False, **overrides, **paths)
    workflow.initialize()
    channels = workflow.parser.get_parsed_content("in_channels")
    if channels != 1:
        raise ValueError(
            f"This model reads {channels} images a case, a DICOM series is one. Convert each series to NIfTI, bring "
            "them to one grid and give them as a datalist to inference.yaml."
        )
    table = _table(workflow)
    if source.modality != table.modality:
        found = source.modality or "of no modality"
        logger.warning("%s is %s; the words of %s are those of %s.", source.label, found, table.source, table.modality)
    workflow.run()
    workflow.finalize()
    return workflow


def _table(workflow: ConfigWorkflow) -> ConceptTable:
    return workflow.parser.get_parsed_content("concept_table")


def _collect(predictions: Path, target: Path) -> None:
    written = sorted(predictions.rglob("*.nii.gz"))
    if len(written) != 1:
        raise ValueError(
            f"The workflow wrote {len(written)} label maps, expected one as .nii.gz: leave the options of its "
            "SaveImaged as they are in inference.yaml."
        )
    written[0].replace(target)


def _write_segmentation(source: Series, results: Sequence[Path], workflow: ConfigWorkflow) -> None:
    labels = np.asarray(nibabel.Nifti1Image.from_filename(results[0]).dataobj)
    table = _table(workflow)
    if labels.ndim == 3 and not workflow.parser.get_parsed_content("softmax"):
        labels = labels[..., None]  # a single region
    version = str((workflow.parser.get("_meta_") or {}).get("version", "unknown"))
    make_segmentation(source, labels, table.classes, table.codes, version=version).save_as(results[1])
