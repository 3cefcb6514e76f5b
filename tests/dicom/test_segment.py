"""The whole way, from a folder of DICOM files through the real inference workflow to NIfTI and SEG."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow
from numpy.typing import NDArray

from scripts.dicom.segment import segment_dicom
from scripts.dicom.series import read_series

highdicom = pytest.importorskip("highdicom", reason="DICOM is optional: pip install pydicom highdicom")

Export = Callable[..., Path]
SPLEEN = {"scheme": "SCT", "value": "78961009", "meaning": "Spleen"}
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(autouse=True)
def foreign_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def truth(scan: Any) -> NDArray[np.int16]:
    """Four boxes of classes 1 to 4 in an oblique scan of 26 slices, 28 rows, 30 columns."""
    labels = np.zeros((26, 28, 30), dtype=np.int16)
    labels[3:9, 4:20, 5:25] = 1
    labels[9:20, 2:12, 4:14] = 2
    labels[10:22, 14:26, 3:11] = 3
    labels[12:24, 6:22, 16:28] = 4
    return labels


@pytest.fixture
def oblique(scan: Any, truth: NDArray[np.int16]) -> Any:
    """The scan that shows class c at -175 + 425 x c / 4 HU: c / 4 of the window of inference.yaml."""
    scan.stored = np.round(-175 + 425 * truth / 4 + 1024).astype(np.int16)
    scan.spacing = (2.0, 2.0, 2.5)
    return scan


def write_words(path: Path, names: list[str]) -> Path:
    classes = [{"name": name, "shape": f"{name} form.", "location": f"Place {name}."} for name in names]
    classes[0]["code"] = SPLEEN  # type: ignore[assignment]
    path.write_text(yaml.safe_dump({"modality": "CT", "concepts": ["shape", "location"], "classes": classes}))
    return path


@pytest.fixture
def options(bundle_root: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "config_file": [str(bundle_root / "configs/inference.yaml")],
        "bundle_root": str(bundle_root),
        "concepts_file": str(write_words(tmp_path / "words.yaml", ["spleen", "b", "c", "d"])),
        "device": "$torch.device('cpu')",
        "spacing": [2.0, 2.0, 2.5],
        "roi_size": [32, 32, 32],
        "sw_overlap": 0.0,
    }


def reader(folder: Path, levels: list[float], softmax: bool) -> dict[str, Any]:
    """Overrides for a network of one convolution that reads labels off the intensity x.

    Exclusive: the logits 2 x l - l^2 are largest for the level l nearest to x. Regions: x - l.
    """
    level = torch.tensor(levels)
    weight = 2 * level if softmax else torch.ones_like(level)
    bias = -(level**2) if softmax else -level
    torch.save({"model": {"weight": weight.reshape(-1, 1, 1, 1, 1), "bias": bias}}, folder / "reader.pt")
    network = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": len(levels), "kernel_size": 1}
    return {"network_def": network, "ckpt_path": str(folder / "reader.pt"), "softmax": softmax}


def segments_at(path: Path) -> tuple[Any, NDArray[np.bool_], NDArray[np.float64]]:
    """A SEG as columns x rows x slices x segments, with its affine in RAS."""
    file = highdicom.seg.segread(path)
    volume = file.get_volume(rtol=1e-4)
    array = volume.array.transpose(2, 1, 0, 3) > 0
    affine = LPS_TO_RAS @ volume.affine @ np.eye(4)[[2, 1, 0, 3]]
    return file, array, affine


def assert_same_places(seg: Path, nifti: Any, classes: int) -> None:
    """Every set voxel of each segment, through both affines, and none besides."""
    _, array, affine = segments_at(seg)
    labels = np.asarray(nifti.dataobj)
    for c in range(classes):
        expected = labels[..., c] == 1 if labels.ndim == 4 else labels == c + 1
        places = [
            {tuple(np.round(place, 1) + 0.0) for place in nib.affines.apply_affine(matrix, np.argwhere(mask))}
            for matrix, mask in ((affine, array[..., c]), (nifti.affine, expected))
        ]
        assert places[0] == places[1], c


def test_oblique_series_comes_back_voxel_for_voxel(
    oblique: Any, truth: Any, export: Export, options: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    folder = export(oblique.slices()[::-1], "CASE 7.1")
    segment_dicom(str(folder), str(tmp_path / "new/out"), **options, **reader(tmp_path, [0, 0.25, 0.5, 0.75, 1], True))
    assert {path.name for path in (tmp_path / "new/out").iterdir()} == {"CASE 7.1_seg.nii.gz", "CASE 7.1_seg.dcm"}
    assert capsys.readouterr().out.strip().endswith("CASE 7.1_seg.dcm")
    nifti = nib.load(tmp_path / "new/out/CASE 7.1_seg.nii.gz")
    np.testing.assert_allclose(nifti.affine, read_series(folder).affine, atol=1e-3)
    np.testing.assert_array_equal(np.asarray(nifti.dataobj), truth.T)
    seg = tmp_path / "new/out/CASE 7.1_seg.dcm"
    assert_same_places(seg, nifti, classes=4)
    file, _, _ = segments_at(seg)
    assert [s.SegmentLabel for s in file.SegmentSequence] == ["spleen", "b", "c", "d"]
    kinds = [s.SegmentedPropertyTypeCodeSequence[0] for s in file.SegmentSequence]
    assert [(k.CodingSchemeDesignator, k.CodeValue) for k in kinds[:2]] == [("SCT", "78961009"), ("99BIPVL", "b")]


def test_overlapping_regions(oblique: Any, truth: Any, export: Export, options: dict[str, Any], tmp_path: Path) -> None:
    """Region 1 is x > 1/8, region 2 x > 5/8: the second lies within the first."""
    options["concepts_file"] = str(write_words(tmp_path / "two.yaml", ["outer", "inner"]))
    segment_dicom(str(export(oblique.slices())), "out", **options, **reader(tmp_path, [0.125, 0.625], False))
    nifti = nib.load(tmp_path / "out/series_seg.nii.gz")
    expected = np.stack([truth.T >= 1, truth.T >= 3], axis=-1)
    np.testing.assert_array_equal(np.asarray(nifti.dataobj), expected)
    assert_same_places(tmp_path / "out/series_seg.dcm", nifti, classes=2)
    assert segments_at(tmp_path / "out/series_seg.dcm")[0].SegmentsOverlap == "YES"


def test_single_region(oblique: Any, truth: Any, export: Export, options: dict[str, Any], tmp_path: Path) -> None:
    options["concepts_file"] = str(write_words(tmp_path / "one.yaml", ["outer"]))
    segment_dicom(str(export(oblique.slices())), "out", **options, **reader(tmp_path, [0.125], False))
    _, array, _ = segments_at(tmp_path / "out/series_seg.dcm")
    assert array.shape[-1] == 1
    assert array.sum() == (truth > 0).sum()


def test_network_of_the_bundle_finds_what_it_finds_in_nifti(
    oblique: Any, export: Export, options: dict[str, Any], tiny_bert: Path, tmp_path: Path
) -> None:
    """BiPVL-Seg itself, tiny and untrained, on the series and, by monai.bundle, on the series as NIfTI."""
    options |= {"text_encoder": str(tiny_bert), "backbone#network#depths": [1, 1, 1, 1], "roi_size": [64, 32, 32]}
    config = options.pop("config_file")
    torch.manual_seed(0)
    network = ConfigWorkflow(config, workflow_type="inference", logging_file=False, **options).parser
    state = network.get_parsed_content("network_def").state_dict()
    torch.save({"model": state}, tmp_path / "model.pt")
    options["ckpt_path"] = str(tmp_path / "model.pt")
    folder = export([oblique.multi_frame(list(range(26)))])
    segment_dicom(str(folder), "out", config, **options)
    read_series(folder).save(tmp_path / "case.nii.gz")
    paths = {"dataset_dir": str(tmp_path / "case.nii.gz"), "predictions_dir": str(tmp_path / "plain")}
    monai.bundle.run("inference", config_file=config, logging_file=False, **options, **paths)
    plain, found = (nib.load(tmp_path / name) for name in ("plain/case_seg.nii.gz", "out/series_seg.nii.gz"))
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(plain.dataobj))
    assert len(np.unique(np.asarray(found.dataobj))) > 1
    assert_same_places(tmp_path / "out/series_seg.dcm", found, classes=4)


class TestArguments:
    @pytest.fixture
    def run(self, oblique: Any, export: Export, options: dict[str, Any], tmp_path: Path) -> Callable[..., None]:
        folder = export(oblique.slices())
        options |= reader(tmp_path, [0, 0.25, 0.5, 0.75, 1], True)

        def segment(**more: Any) -> None:
            segment_dicom(str(folder), "out", **{**options, **more})

        return segment

    def test_nothing_is_overwritten_unasked(self, run: Callable[..., None], tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/series_seg.dcm").write_text("mine")
        with pytest.raises(FileExistsError, match=r"series_seg\.dcm exist already.*overwrite"):
            run()
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["series_seg.dcm"]
        run(overwrite=True)
        assert (tmp_path / "out/series_seg.dcm").read_bytes()[128:132] == b"DICM"

    def test_failure_leaves_nothing_behind(self, run: Callable[..., None], tmp_path: Path) -> None:
        with pytest.raises(Exception, match=r"."):
            run(ckpt_path=str(tmp_path / "nowhere.pt"))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("key", ["dataset_dir", "predictions_dir"])
    def test_that_are_taken(self, run: Callable[..., None], key: str) -> None:
        with pytest.raises(ValueError, match=rf"{key} cannot be given here: `series` and `output`"):
            run(**{key: "elsewhere"})

    def test_model_of_several_channels(self, run: Callable[..., None]) -> None:
        with pytest.raises(ValueError, match=r"reads 2 images a case, a DICOM series is one"):
            run(in_channels=2)

    def test_other_modality_is_reported(
        self, run: Callable[..., None], options: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        words = Path(options["concepts_file"])
        words.write_text(words.read_text().replace("CT", "MR"))
        run()
        assert any("'Abdomen'" in m and "is CT; the words of words.yaml are those of MR" in m for m in caplog.messages)


def test_series_without_uids_has_its_label_map_as_nifti_alone(
    oblique: Any,
    truth: Any,
    export: Export,
    options: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    datasets = oblique.slices()
    for dataset in datasets:
        del dataset.StudyInstanceUID
    segment_dicom(str(export(datasets)), "out", **options, **reader(tmp_path, [0, 0.25, 0.5, 0.75, 1], True))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["series_seg.nii.gz"]
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out/series_seg.nii.gz").dataobj), truth.T)
    assert "has a StudyInstanceUID: a DICOM SEG could not name its images" in caplog.text
