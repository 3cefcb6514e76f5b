"""The shipped data sets, from their official folders to scores: miniatures in each layout, with their overlays."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from numpy.typing import NDArray

from scripts.data.datalist import load_datalist, training_items
from scripts.data.public.datalists import make_datalist
from scripts.data.public.layouts import MMWHS_LABELS
from scripts.words.table import ConceptTable

Run = Callable[..., None]
Array = NDArray[Any]
SHAPE = (20, 18, 16)
ORIENTATIONS = ("LPS", "RAS", "PIR", "SLA")

PAIRED = "lateral ventricle", "thalamus", "caudate nucleus", "putamen", "globus pallidus", "hippocampus", "amygdala"
DECATHLON = {
    "hippocampus": ["Anterior", "Posterior"],
    "brain_structures": [*(f"{side} {part}" for part in PAIRED for side in ("left", "right")), "brainstem"],
}
"""The labels of data sets in the layout of any of its tasks: one channel, values from 1 on."""
CONSECUTIVE = {"amos22": 15, **{name: len(labels) for name, labels in DECATHLON.items()}}
"""Data sets whose classes are the labels from 1 to so many."""
PAPERS = ("amos22", "mmwhs_ct", "mmwhs_mr", "msd_brain")
DATASETS = (*PAPERS, *DECATHLON)
SPLITS = {"amos22": None, "msd_brain": "2/1/1"}
REGIONS = {"tumor core": [2, 3], "whole tumor": [1, 2, 3], "enhancing tumor": [3]}


def blocks(values: list[int], seed: int) -> Array:
    """A cube of 4 x 4 x 4 voxels for each value, apart from one another."""
    label = np.zeros(SHAPE, dtype=np.uint16)
    spots = np.random.default_rng(seed).permutation(4 * 3 * 3)[: len(values)]
    for value, spot in zip(values, spots, strict=True):
        x, y, z = (2 + 4 * int(i) for i in np.unravel_index(spot, (4, 3, 3)))
        label[x : x + 4, y : y + 4, z : z + 4] = value
    return label


def nested(seed: int) -> Array:
    """Oedema around a core of non-enhancing tumour around enhancing tumour."""
    label = np.zeros(SHAPE, dtype=np.uint16)
    x, y, z = 3 + np.random.default_rng(seed).integers(0, 3, size=3)
    for value, size in ((1, 10), (2, 6), (3, 3)):
        label[x : x + size, y : y + size, z : z + size] = value
    return label


def save(array: Array, path: Path, codes: str) -> None:
    """An array in RAS order, stored as `codes` say: 3 x 3 x 4 mm, off the origin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([3.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (-20, 15, 300)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    nib.save(nib.Nifti1Image(array, affine).as_reoriented(turn), path)


def save_case(image: Path, label: Path, values: Array, levels: Array, codes: str) -> None:
    """CT in HU, 16 bits, air around; the intensity tells the class."""
    hounsfield = np.where(values > 0, levels[values], -50).astype(np.int16)
    hounsfield[:1] = -1000
    save(hounsfield, image, codes)
    save(values, label, codes)


def amos22(root: Path) -> None:
    """CT, in two orientations, and MR, which is to be left out."""
    levels = np.linspace(-150, 240, 16)
    for section, numbers in {"Tr": (1, 4, 5, 507), "Va": (8, 508)}.items():
        for number in numbers:
            name = f"amos_{number:04}.nii.gz"
            values = blocks(list(range(1, 16)), seed=number).astype(np.uint8)
            codes = ("LAS", "LPS")[number % 2]
            save_case(root / f"images{section}" / name, root / f"labels{section}" / name, values, levels, codes)


def mmwhs(root: Path) -> None:
    values = list(map(int, MMWHS_LABELS))
    levels = np.zeros(1001)
    levels[values] = np.arange(1, 8) * 400 / 7
    levels[421] = levels[420]
    for kind in ("ct", "mr"):
        for n, codes in enumerate(ORIENTATIONS):
            stem = root / f"{kind}_train" / f"{kind}_train_{1001 + n}"
            faulty = [421 if v == 420 and n == 2 else v for v in values]
            save_case(Path(f"{stem}_image.nii.gz"), Path(f"{stem}_label.nii.gz"), blocks(faulty, n), levels, codes)


def msd_brain(root: Path) -> None:
    """Each channel but the last shows one region: brighter inside than outside, and 0 outside the head."""
    names = []
    for n, codes in enumerate(ORIENTATIONS):
        values = nested(n)
        channels = [1.0 + 2.0 * np.isin(values, labels) for labels in REGIONS.values()]
        image = np.stack([*channels, 1.0 + np.random.default_rng(n).random(SHAPE)], axis=-1).astype(np.float32)
        image[:2] = image[-1:] = 0
        name = f"BRATS_{n + 1:03}.nii.gz"
        save(image, root / "imagesTr" / name, codes)
        save(values.astype(np.uint8), root / "labelsTr" / name, codes)
        names.append(name)
    labels = ["background", "edema", "non-enhancing tumor", "enhancing tumour"]
    save_decathlon_list(root, names, ["FLAIR", "T1w", "t1gd", "T2w"], labels)


def decathlon(root: Path) -> None:
    names = [f"{root.name}_{n + 1:03}.nii.gz" for n in range(len(ORIENTATIONS))]
    labels = DECATHLON[root.name]
    count = len(labels)
    for n, (name, codes) in enumerate(zip(names, ORIENTATIONS, strict=True)):
        values, levels = blocks(list(range(1, count + 1)), seed=n).astype(np.uint8), np.linspace(0, 800, count + 1)
        save_case(root / "imagesTr" / name, root / "labelsTr" / name, values, levels, codes)
    save_decathlon_list(root, names, ["MRI"], ["background", *labels])


def save_decathlon_list(root: Path, names: list[str], channels: list[str], labels: list[str]) -> None:
    content = {
        "name": root.name,
        "modality": {str(n): channel for n, channel in enumerate(channels)},
        "labels": {str(n): label for n, label in enumerate(labels)},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def datalists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("official")
    makers = {"amos22": amos22, "mmwhs": mmwhs, "msd_brain": msd_brain, **dict.fromkeys(DECATHLON, decathlon)}
    for name, maker in makers.items():
        maker(folder / name)
    roots = {name: folder / ("mmwhs" if name.startswith("mmwhs") else name) for name in DATASETS}
    return {
        name: make_datalist("msd" if name in DECATHLON else name, str(root), split=SPLITS.get(name, "3/1"))
        for name, root in roots.items()
    }


def options(name: str, datalist: Path, root: Path) -> dict[str, Any]:
    """What makes the full-size recipe of an overlay small: with the words of its table, and three folds."""
    return {
        "dataset_dir": str(datalist),
        "text_encoder": str(root / "models/text_encoder"),
        "text_stage_layers": [1, 1, 1, 1],
        "spacing": [4.0, 4.0, 4.0],
        "roi_size": [64, 32, 32],
        "backbone#network#feature_size": 12,
        "backbone#network#window_size": 4,
        "backbone#network#depths": [1, 1, 1, 1],
        "backbone#network#use_checkpoint": False,
        "amp": False,
        "num_workers": 0,
        "device": "cpu",
    }


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def raw(path: str) -> Array:
    return np.asarray(nib.load(path).dataobj)


def voxels(name: str, label: Array) -> list[int]:
    """Of each class, in the order of the table, counted in the file as it is."""
    if name == "msd_brain":
        return [int(np.isin(label, labels).sum()) for labels in REGIONS.values()]
    if name in CONSECUTIVE:
        return [int((label == c).sum()) for c in range(1, CONSECUTIVE[name] + 1)]
    values = [[420, 421] if value == "420" else [int(value)] for value in MMWHS_LABELS]
    return [int(np.isin(label, value).sum()) for value in values]


def check_scores(path: Path, name: str, items: list[dict[str, Any]], classes: tuple[str, ...]) -> None:
    rows = read_csv(path)
    found = [(row["case"], row["class"], int(row["voxels_reference"])) for row in rows]
    expected = [
        (item["case"], c, n)
        for item in sorted(items, key=lambda item: item["case"])
        for c, n in zip(classes, voxels(name, raw(item["label"])), strict=True)
    ]
    assert found == expected
    assert min(n for _, _, n in found) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_from_the_official_folder_to_scores_and_label_maps(
    run: Run, datalists: dict[str, Path], bundle_root: Path, tmp_path: Path, name: str
) -> None:
    """Two iterations of training, evaluation on both sections, inference on the test section."""
    datalist, overlay = datalists[name], f"dataset_{name}.yaml"
    small = options(name, datalist, bundle_root)
    classes = ConceptTable.load(bundle_root / f"configs/concepts/{name}.yaml").classes

    run("training", "train.yaml", overlay, **small, max_epochs=1, val_interval=1)
    state = torch.load(tmp_path / "models/last.pt", weights_only=True)
    assert state["trainer"]["iteration"] == 2

    known = {item["case"]: item for item in load_datalist(datalist)}
    held_out = [item for item in known.values() if item["fold"] == 0]
    run("evaluating", "train.yaml", overlay, "evaluate.yaml", **small)
    check_scores(tmp_path / "runs/metrics/metrics_per_case.csv", name, held_out, classes)
    test = load_datalist(datalist, "test")
    run(
        "evaluating",
        "train.yaml",
        overlay,
        "evaluate.yaml",
        **small,
        evaluate_on="test",
        metrics_dir=str(tmp_path / "t"),
    )
    check_scores(tmp_path / "t/metrics_per_case.csv", name, test, classes)

    run("inference", "inference.yaml", overlay, **small)
    (path,) = (tmp_path / "runs/predictions").glob("*.nii.gz")
    image, result = nib.load(test[0]["image"]), nib.load(path)
    assert path.name == f"{test[0]['case']}_seg.nii.gz"
    assert result.get_data_dtype() == np.uint8
    np.testing.assert_allclose(result.affine, image.affine, atol=1e-4)
    assert result.shape == ((*image.shape[:3], 3) if name == "msd_brain" else image.shape)
    assert np.asarray(result.dataobj).max() <= (1 if name == "msd_brain" else len(classes))


class TestPerfectNetwork:
    """Images that show their own labels, and a convolution of one voxel that reads them off."""

    @pytest.fixture
    def brain(self, tmp_path: Path) -> dict[str, Any]:
        """A channel that shows a region is brighter than its mean inside it: after z-scoring, above 0."""
        weight = torch.eye(3, 4).reshape(3, 4, 1, 1, 1)
        torch.save({"model": {"weight": weight, "bias": torch.zeros(3)}}, tmp_path / "oracle.pt")
        return {"ckpt_path": str(tmp_path / "oracle.pt")}

    def overlay(self, folder: Path, inputs: int, outputs: int) -> Path:
        sizes = f"in_channels: {inputs}, out_channels: {outputs}, kernel_size: 1"
        (folder / "oracle.yaml").write_text(
            f"network_def: {{_target_: torch.nn.Conv3d, {sizes}}}\nbase_transforms#2#mode: [nearest, nearest]\n"
        )
        return folder / "oracle.yaml"

    def test_regions_are_scored_on_the_grid_of_the_file(
        self, run: Run, datalists: dict[str, Path], bundle_root: Path, tmp_path: Path, brain: dict[str, Any]
    ) -> None:
        small = {**options("msd_brain", datalists["msd_brain"], bundle_root), **brain, "spacing": [3.0, 3.0, 4.0]}
        files = ("train.yaml", "dataset_msd_brain.yaml", self.overlay(tmp_path, 4, 3), "evaluate.yaml")
        run("evaluating", *files, **small, evaluate_on="test")
        rows = read_csv(tmp_path / "runs/metrics/metrics_per_case.csv")
        assert [row["class"] for row in rows] == list(REGIONS)
        assert [float(row["dice"]) for row in rows] == [1.0] * 3
        assert [float(row["hd95_mm"]) for row in rows] == [0.0] * 3

    def test_papers_enhancing_tumour_is_label_2(
        self, run: Run, datalists: dict[str, Path], bundle_root: Path, tmp_path: Path, brain: dict[str, Any]
    ) -> None:
        small = {**options("msd_brain", datalists["msd_brain"], bundle_root), **brain, "spacing": [3.0, 3.0, 4.0]}
        files = ("train.yaml", "dataset_msd_brain.yaml", self.overlay(tmp_path, 4, 3), "evaluate.yaml")
        run("evaluating", *files, **small, evaluate_on="test", enhancing_tumour_label=2)
        rows = {row["class"]: row for row in read_csv(tmp_path / "runs/metrics/metrics_per_case.csv")}
        assert int(rows["enhancing tumor"]["voxels_reference"]) == 6**3 - 3**3
        assert float(rows["enhancing tumor"]["dice"]) == 0.0
        assert float(rows["tumor core"]["dice"]) == 1.0

    def test_regions_are_written_one_channel_each(
        self, run: Run, datalists: dict[str, Path], bundle_root: Path, tmp_path: Path, brain: dict[str, Any]
    ) -> None:
        """In every orientation: the whole training folder as input."""
        small = {**options("msd_brain", datalists["msd_brain"], bundle_root), **brain, "spacing": [3.0, 3.0, 4.0]}
        folder = datalists["msd_brain"].parent
        small["dataset_dir"] = str(folder / "imagesTr")
        run("inference", "inference.yaml", "dataset_msd_brain.yaml", self.overlay(tmp_path, 4, 3), **small)
        written = sorted((tmp_path / "runs/predictions").glob("*.nii.gz"))
        assert len(written) == len(ORIENTATIONS)
        for path, codes in zip(written, ORIENTATIONS, strict=True):
            result = nib.load(path)
            label = raw(str(folder / "labelsTr" / path.name.replace("_seg", "")))
            assert "".join(nib.aff2axcodes(result.affine)) == codes
            expected = np.stack([np.isin(label, labels) for labels in REGIONS.values()], axis=-1)
            np.testing.assert_array_equal(np.asarray(result.dataobj), expected)

    def test_values_of_the_heart_are_scored_under_their_names(
        self, run: Run, datalists: dict[str, Path], bundle_root: Path, tmp_path: Path
    ) -> None:
        """The faulty 421 included: its case is one of the folds, each of which is scored."""
        levels = torch.arange(8) / 7  # of the window of 0 to 400 HU
        convolution = {"weight": (2 * levels).reshape(8, 1, 1, 1, 1), "bias": -(levels**2)}
        torch.save({"model": convolution}, tmp_path / "oracle.pt")
        small = {**options("mmwhs_ct", datalists["mmwhs_ct"], bundle_root), "spacing": [3.0, 3.0, 4.0]}
        files = ("train.yaml", "dataset_mmwhs_ct.yaml", self.overlay(tmp_path, 1, 8), "evaluate.yaml")
        items = load_datalist(datalists["mmwhs_ct"])
        (fold,) = {item["fold"] for item in items if 421 in raw(item["label"])} or {None}
        chosen = {"evaluate_on": "test"} if fold is None else {"fold": fold}
        run("evaluating", *files, **small, **chosen, ckpt_path=str(tmp_path / "oracle.pt"))
        rows = read_csv(tmp_path / "runs/metrics/metrics_per_case.csv")
        assert [row["class"] for row in rows] == list(MMWHS_LABELS.values())
        assert [float(row["dice"]) for row in rows] == [1.0] * 7


class TestPreprocessing:
    """Table 4 and section 7.1, as the merged configuration says and as it does."""

    @pytest.fixture
    def parsed(self, bundle_root: Path) -> Callable[..., ConfigParser]:
        def parse(name: str, **changes: Any) -> ConfigParser:
            parser = ConfigParser()
            parser.read_config([str(bundle_root / "configs" / f) for f in ("train.yaml", f"dataset_{name}.yaml")])
            parser.update({"bundle_root": str(bundle_root), **changes})
            return parser

        return parse

    @pytest.mark.parametrize(
        ("name", "spacing", "window"),
        [
            ("amos22", [1.5, 1.5, 2.0], [-175, 250, 0.0, 1.0]),
            ("mmwhs_ct", [1.5, 1.5, 2.0], [0, 400, 0.0, 1.0]),
            ("mmwhs_mr", [1.5, 1.5, 2.0], None),
            ("msd_brain", [1.0, 1.0, 1.0], None),
        ],
    )
    def test_is_that_of_table_4(self, parsed: Any, name: str, spacing: list[float], window: list[float] | None) -> None:
        config = parsed(name)
        assert config["spacing"] == spacing
        steps = {step["_target_"]: step for step in config["intensity"]}
        if window is None:
            assert list(steps) == ["CropForegroundd", "NormalizeIntensityd"]
            assert steps["NormalizeIntensityd"]["nonzero"] is steps["NormalizeIntensityd"]["channel_wise"] is True
        else:
            assert list(steps) == ["ScaleIntensityRanged", "CropForegroundd"]
            scale = steps["ScaleIntensityRanged"]
            assert [scale[key] for key in ("a_min", "a_max", "b_min", "b_max")] == window
            assert scale["clip"] is True

    def test_recipe_is_one_for_the_papers_data_sets(self, parsed: Any) -> None:
        keys = ("max_epochs", "val_interval", "learning_rate", "batch_size", "roi_size", "flip_prob", "amp")
        keys += ("text_encoder", "text_stage_layers", "backbone#network#feature_size", "backbone#network#window_size")
        recipes = [[parsed(name)[key] for key in keys] for name in PAPERS]
        assert all(recipe == recipes[0] for recipe in recipes)

    def test_heart_is_mapped_by_name(self, parsed: Any) -> None:
        for name in ("mmwhs_ct", "mmwhs_mr"):
            config = parsed(name)
            step, classes = config["label_transforms#0"], config.get_parsed_content("class_names")
            named = dict(zip(step["orig_labels"], step["target_labels"], strict=True))
            assert {value: classes[c - 1] for value, c in named.items() if value != 421} == {
                int(value): text for value, text in MMWHS_LABELS.items()
            }
            assert named[421] == named[420]

    def test_regions_of_the_brain_are_those_of_the_table(self, parsed: Any) -> None:
        config = parsed("msd_brain")
        regions = config.get_parsed_content("label_transforms#0").regions
        assert dict(zip(config.get_parsed_content("class_names"), regions, strict=True)) == REGIONS
        paper = parsed("msd_brain", enhancing_tumour_label=2).get_parsed_content("label_transforms#0").regions
        assert paper == [[2, 3], [1, 2, 3], [2]]

    @pytest.mark.parametrize("name", DATASETS)
    def test_patch_of_a_real_layout(self, parsed: Any, datalists: dict[str, Path], name: str) -> None:
        config = parsed(name, dataset_dir=str(datalists[name]), roi_size=[32, 32, 32], spacing=[4.0, 4.0, 4.0])
        items = training_items(datalists[name], 0, config["num_folds"])
        (patch,) = config.get_parsed_content("train#preprocessing")(items[0])
        channels = (4, 3) if name == "msd_brain" else (1, 1)
        assert patch["image"].shape == (channels[0], 32, 32, 32)
        assert patch["label"].shape == (channels[1], 32, 32, 32)
        assert patch["image"].isfinite().all()
        highest = 1 if name == "msd_brain" else len(config.get_parsed_content("class_names"))
        assert set(patch["label"].unique().tolist()) <= set(range(highest + 1))
        assert len(patch["label"].unique()) > 1

    def test_foreign_value_stops_with_the_name_of_the_file(
        self, parsed: Any, datalists: dict[str, Path], tmp_path: Path
    ) -> None:
        item = training_items(datalists["mmwhs_ct"], 0, 3)[0]
        values = np.where(raw(item["label"]) == 850, 7, raw(item["label"]))  # a class number among official values
        nib.save(nib.Nifti1Image(values, nib.load(item["label"]).affine), tmp_path / "converted.nii.gz")
        steps = Compose(parsed("mmwhs_ct").get_parsed_content("preprocessing_transforms"))
        with pytest.raises(RuntimeError) as raised:
            steps({**item, "label": str(tmp_path / "converted.nii.gz")})
        assert "converted.nii.gz: expected only the values 0, 205" in str(raised.value.__cause__)
