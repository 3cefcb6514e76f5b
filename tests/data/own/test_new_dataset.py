"""A folder of images and one of labels, and what is written of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from scripts.configuration.check import check_config
from scripts.data.datalist import load_datalist, validation_items
from scripts.data.own.dataset_files import known_words, table_text, write_together
from scripts.data.own.new_dataset import new_dataset
from scripts.data.own.nnunet_folder import read_nnunet_folder
from scripts.data.own.survey import read_header
from scripts.words.table import ConceptTable

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"
LPS = np.array([[-0.8, 0, 0, 0], [0, -0.9, 0, 0], [0, 0, 2.5, 0], [0, 0, 0, 1.0]])

Make = Callable[..., Any]


@pytest.fixture
def bundle(tmp_path: Path, bundle_root: Path) -> Path:
    root = tmp_path / "bundle"
    (root / "configs" / "concepts").mkdir(parents=True)
    for name in ("train.yaml", "inference.yaml", "metadata.json"):
        shutil.copy(bundle_root / "configs" / name, root / "configs")
    return root


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Six cases named by nnU-Net, of 20 x 40 x 12 voxels, in LPS; classes of 100 +- 10 and -50 +- 10 in air."""
    rng = np.random.default_rng(0)
    for number in range(6):
        label = np.zeros((20, 40, 12), np.uint8)
        label[5:9, 5:9, 3:6] = 1
        label[11:15, 5:9, 3:6] = 2
        image = np.choose(label, (-1000.0, 100.0, -50.0)) + rng.uniform(-10, 10, label.shape) * (label > 0)
        name = f"pat{number // 2}_{number}"
        save(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", image)
        save(tmp_path / "labelsTr" / f"{name}.nii.gz", label)
    return tmp_path


@pytest.fixture
def make(bundle: Path, volumes: Path) -> Make:
    def new(**options: Any) -> Any:
        arguments: dict[str, Any] = {
            "name": "mine",
            "images": str(volumes / "imagesTr"),
            "labels": str(volumes / "labelsTr"),
            "classes": "left kidney, right kidney",
            "modality": "CT",
            "bundle_root": str(bundle),
            "progress": False,
        }
        return new_dataset(**{**arguments, **options})

    return new


def save(path: Path, array: np.ndarray, affine: np.ndarray = LPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    nib.save(nib.Nifti1Image(array, affine), path)


def overlay(bundle: Path, name: str = "mine") -> dict[str, Any]:
    return yaml.safe_load((bundle / "configs" / f"dataset_{name}.yaml").read_text())


def written(bundle: Path) -> set[str]:
    return {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}


class TestNewDataset:
    def test_writes_the_three_files_and_says_what_is_next(
        self, make: Make, bundle: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = written(bundle)
        paths = make()
        assert written(bundle) - before == {
            "configs/dataset_mine.yaml",
            "configs/concepts/mine.yaml",
            "data/mine/dataset.json",
        }
        assert set(paths) == {bundle / name for name in written(bundle) - before}
        said = capsys.readouterr().out
        assert "6 labelled cases" in said
        assert "pat0_0: pat0_0_0000.nii.gz with pat0_0.nii.gz" in said
        assert "check_data --config_file \"['configs/train.yaml','configs/dataset_mine.yaml']\"" in said

    @pytest.mark.parametrize(
        ("base", "options"),
        [
            ("train.yaml", {}),
            ("train.yaml", {"label_values": [2, 1]}),
            ("inference.yaml", {"label_values": [[1, 2], [2]], "modality": "MR"}),
        ],
    )
    def test_the_overlay_passes_the_config_check(
        self, make: Make, bundle: Path, base: str, options: dict[str, Any]
    ) -> None:
        make(**options)
        assert check_config([str(bundle / "configs" / base), str(bundle / "configs/dataset_mine.yaml")]) == []

    def test_settings_follow_from_the_files(self, make: Make, bundle: Path) -> None:
        """16 x 36 x 30 mm; 99% of the labelled voxels within -60 to 110."""
        make()
        content = overlay(bundle)
        assert content["spacing"] == [0.8, 0.9, 2.5]
        assert content["roi_size"] == [64, 64, 32]  # of 20 x 40 x 12 voxels; 32 x 64 x 32 would leave two cells
        assert content["in_channels"] == 1
        assert content["flip_prob"][0] == 0
        window = content["intensity"][0]
        assert (window["a_min"], window["a_max"]) == (-60, 110)
        assert content["prepare_data"] is None
        assert content["cache_rate"] == 1.0
        assert not {"softmax", "label_transforms"} & content.keys()

    def test_flips_stay_where_no_class_has_a_side(self, make: Make, bundle: Path) -> None:
        make(classes=["liver", "brightleft tissue"])
        assert overlay(bundle)["flip_prob"] == [0.1, 0.0, 0.0]

    def test_mr_is_z_scored_and_cropped_only_if_nothing_is_below_zero(self, make: Make, bundle: Path) -> None:
        make(modality="MR")
        assert [step["_target_"] for step in overlay(bundle)["intensity"]] == ["NormalizeIntensityd"]

    def test_mr_above_zero_is_cropped(self, make: Make, bundle: Path, volumes: Path) -> None:
        for path in (volumes / "imagesTr").iterdir():
            save(path, nib.load(path).get_fdata() + 1000)
        make(modality="MR")
        steps = overlay(bundle)["intensity"]
        assert [step["_target_"] for step in steps] == ["CropForegroundd", "NormalizeIntensityd"]
        assert steps[1]["nonzero"] is True

    def test_folds_are_written_by_patient(self, make: Make, bundle: Path, volumes: Path) -> None:
        make(patient_pattern=r"^pat(\d)")
        entries = json.loads((bundle / "data/mine/dataset.json").read_text())["training"]
        assert {entry["patient"] for entry in entries} == {"0", "1", "2"}
        assert sorted(entry["fold"] for entry in entries) == [0, 0, 1, 1, 2, 2]
        assert len({(entry["patient"], entry["fold"]) for entry in entries}) == 3
        assert entries[0]["image"] == str(volumes / "imagesTr/pat0_0_0000.nii.gz")
        held_out = validation_items(bundle / "data/mine", 0, 3, seed=99)
        assert {item["patient"] for item in held_out} == {e["patient"] for e in entries if e["fold"] == 0}

    def test_paths_may_be_relative_to_the_datalist(self, make: Make, bundle: Path, volumes: Path) -> None:
        make(relative_paths=True)
        entry = json.loads((bundle / "data/mine/dataset.json").read_text())["training"][0]
        assert entry["label"] == "../../../labelsTr/pat0_0.nii.gz"
        assert load_datalist(bundle / "data/mine")[0]["label"] == str(volumes / "labelsTr/pat0_0.nii.gz")

    def test_test_images_become_a_section(self, make: Make, bundle: Path, volumes: Path) -> None:
        save(volumes / "imagesTs" / "x_0000.nii.gz", np.zeros((4, 4, 4)))
        make(test_images=str(volumes / "imagesTs"))
        test = json.loads((bundle / "data/mine/dataset.json").read_text())["test"]
        assert test == [{"case": "x_0000", "image": str(volumes / "imagesTs/x_0000.nii.gz")}]

    def test_a_patient_in_training_and_test_is_refused(self, make: Make, volumes: Path) -> None:
        save(volumes / "ts" / "pat1_9.nii.gz", np.zeros((4, 4, 4)))
        with pytest.raises(ValueError, match=r"patient '1' is among the training and the test images"):
            make(test_images=str(volumes / "ts"), patient_pattern=r"^pat(\d)")

    def test_values_of_the_files_are_mapped_to_classes(self, make: Make, bundle: Path, volumes: Path) -> None:
        for path in (volumes / "labelsTr").iterdir():
            save(path, nib.load(path).get_fdata().astype(np.uint16) * 205)
        with pytest.raises(ValueError, match=r"hold the values 205, 410, .* expected 0, 1, 2\..*label_values"):
            make()
        make(label_values=[410, 205])
        (step,) = overlay(bundle)["label_transforms"]
        assert (step["orig_labels"], step["target_labels"]) == ([410, 205], [1, 2])

    def test_lists_of_values_make_overlapping_regions(self, make: Make, bundle: Path) -> None:
        make(classes="whole,core", label_values=[[1, 2], [2]])
        content = overlay(bundle)
        assert content["softmax"] is False
        assert content["label_transforms"][0]["regions"] == [[1, 2], [2]]

    def test_labels_with_a_channel_for_each_region_are_taken_as_such(
        self, make: Make, bundle: Path, volumes: Path
    ) -> None:
        for path in (volumes / "labelsTr").iterdir():
            label = nib.load(path).get_fdata()
            save(path, np.stack([label > 0, label > 1], axis=-1).astype(np.uint8))
        make()
        assert overlay(bundle)["softmax"] is False
        shutil.rmtree(bundle / "data")
        with pytest.raises(ValueError, match=r"labels have 2 channels; expected one channel .* the 3 classes"):
            make(name="other", classes="a,b,c")

    def test_files_of_channels_become_lists(self, make: Make, bundle: Path, volumes: Path) -> None:
        for path in list((volumes / "imagesTr").iterdir()):
            shutil.copy(path, str(path).replace("_0000", "_0001"))
        make()
        assert overlay(bundle)["in_channels"] == 2
        image = load_datalist(bundle / "data/mine")[0]["image"]
        assert [Path(path).name for path in image] == ["pat0_0_0000.nii.gz", "pat0_0_0001.nii.gz"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"name": "my data"}, r"'my data' will not do as a data set's name"),
            ({"name": "3d"}, r"'3d' will not do .* expected a letter, then letters"),
            ({"classes": ""}, r"names no class"),
            ({"classes": 2}, r"classes is 2; expected names between commas"),
            ({"sample": 0}, r"sample is 0; expected 1 or more"),
            ({"classes": "liver,Liver"}, r"duplicate class 'Liver'"),
            ({"classes": "liver"}, r"hold the values 2, for which there is no class: expected 0, 1\. Name all"),
            ({"label_values": [1]}, r"1 label_values for 2 classes"),
            ({"patient_pattern": "("}, r"patient_pattern '\(' is no regular expression"),
            ({"patient_pattern": "^x"}, r"finds no patient in the name of case 'pat0_0'"),
            ({"num_folds": 7}, r"6 patients cannot be split into 7 folds"),
            ({"test_labels": "x"}, r"test_labels need test_images"),
            ({"name": "../mine"}, r"'\.\./mine' will not do as a data set's name"),
            ({"modality": "CT\nimports: [$import os]"}, r"modality has the invisible character U\+000A"),
            ({"modality": "$CT"}, r"modality begins with '\$'"),
            ({"classes": "left kidney,@right"}, r"class name begins with '@'"),
            ({"classes": ["left kidney", "$print(1)"]}, r"class name begins with '\$'"),
            ({"classes": "left kidney,right\u200bkidney"}, r"class name has the invisible character U\+200B"),
            ({"classes": "left kidney,mean"}, r"a class is called 'mean'"),
            ({"label_values": ["$print(1)", 2]}, r"label_values are .*; expected whole numbers"),
            ({"label_values": [[1, "@x"], [2]]}, r"label_values are .*; expected whole numbers"),
        ],
    )
    def test_wrong_arguments_are_refused_and_nothing_is_written(
        self, make: Make, bundle: Path, options: dict[str, Any], message: str
    ) -> None:
        before = written(bundle)
        with pytest.raises(ValueError, match=message):
            make(**options)
        assert written(bundle) == before

    def test_a_folder_that_is_no_bundle_is_refused(self, make: Make, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no folder of the bundle: it has no configs/train\.yaml"):
            make(bundle_root=str(tmp_path))

    @pytest.mark.parametrize(
        "name", ["configs/dataset_mine.yaml", "data/mine/dataset.json", "configs/concepts/mine.yaml"]
    )
    def test_nothing_is_overwritten(self, make: Make, bundle: Path, name: str) -> None:
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text("mine")
        before = written(bundle)
        with pytest.raises(FileExistsError, match=f"{Path(name).name}' is there already"):
            make()
        assert written(bundle) == before
        assert (bundle / name).read_text() == "mine"

    def test_a_broken_file_is_named(self, make: Make, bundle: Path, volumes: Path) -> None:
        path = volumes / "labelsTr/pat2_4.nii.gz"
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ValueError, match=r"pat2_4\.nii\.gz' cannot be read as NIfTI"):
            make()
        path.write_bytes(b"")
        with pytest.raises(ValueError, match=r"pat2_4\.nii\.gz' cannot be read as NIfTI"):
            make()
        assert not (bundle / "data").exists()

    def test_cases_of_another_number_of_channels_are_named(self, make: Make, volumes: Path) -> None:
        save(volumes / "imagesTr/pat2_4_0000.nii.gz", np.zeros((20, 40, 12, 2)))
        with pytest.raises(
            ValueError, match=r"1 of 6 cases .* number of channels than 1: '.*pat2_4_0000\.nii\.gz' has 2"
        ):
            make()


class TestWriteTogether:
    def test_all_or_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        targets = {tmp_path / "new" / "a.yaml": "a", tmp_path / "b.yaml": "b"}
        rename = Path.rename

        def fail_for_b(self: Path, target: Path) -> Path:
            if target.name == "b.yaml":
                raise OSError("disk full")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fail_for_b)
        with pytest.raises(OSError, match="disk full"):
            write_together(targets)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_came_meanwhile_stays(self, tmp_path: Path) -> None:
        (tmp_path / "b.yaml").write_text("theirs")
        with pytest.raises(FileExistsError, match=r"b\.yaml"):
            write_together({tmp_path / "a.yaml": "a", tmp_path / "b.yaml": "b"})
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("b.yaml", "theirs")]


class TestTable:
    def test_is_refused_until_every_sentence_is_written(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        text = table_text(["left kidney", "T1: a #b", "no"], "MR")
        path.write_text(text)
        with pytest.raises(
            ValueError, match=r"mine\.yaml: class 'left kidney', concept 'shape' is still to be written"
        ):
            ConceptTable.load(path)
        lines = [f"{line.split(':')[0]}: Words." if "TODO (" in line else line for line in text.splitlines()]
        path.write_text("\n".join(lines))
        table = ConceptTable.load(path)
        assert table.classes == ("left kidney", "T1: a #b", "no")
        assert table.sentences[0][:2] == ("Left kidney in an MR image.", "Words.")
        assert not table.reviewed
        path.write_text("\n".join(lines).replace("Words.", "TODO words.", 1))
        with pytest.raises(ValueError, match=r"found 'TODO words\.'"):
            ConceptTable.load(path)

    def test_has_the_concepts_of_the_tables_that_come_with_the_bundle(self, bundle_root: Path) -> None:
        concepts = yaml.safe_load(table_text(["a"], "CT"))["concepts"]
        assert tuple(concepts) == ConceptTable.load(bundle_root / "configs/concepts/phantom.yaml").concepts


class TestReadHeader:
    def test_spacing_and_size_are_along_right_anterior_superior(self, tmp_path: Path) -> None:
        """Stored axes point up, to the right and to the back."""
        affine = np.array([[0, 0.5, 0, 0], [0, 0, -0.7, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
        save(tmp_path / "a.nii.gz", np.zeros((5, 6, 7)), affine)
        header = read_header(tmp_path / "a.nii.gz")
        assert header.grid.size == (6, 7, 5)
        assert header.grid.spacing == pytest.approx((0.5, 0.7, 3.0))
        assert header.grid.stored == "SRP"
        assert header.grid.resampled((1.0, 0.7, 1.5)) == (4, 7, 9)
        assert header.channels == 1

    def test_the_fourth_axis_is_the_channels_and_axes_of_one_do_not_count(self, tmp_path: Path) -> None:
        for shape, channels in (((4, 5, 6, 3), 3), ((4, 5, 6, 1), 1), ((4, 5, 6, 1, 2), 2)):
            save(tmp_path / "a.nii.gz", np.zeros(shape))
            assert read_header(tmp_path / "a.nii.gz").channels == channels
        save(tmp_path / "a.nii.gz", np.zeros((4, 5)))
        with pytest.raises(ValueError, match=r"a\.nii\.gz' is no volume: expected 3 spatial dimensions, found 2"):
            read_header(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("folder", "classes", "spacing", "roi"),
    [
        pytest.param("Task04_Hippocampus", "anterior,posterior", [1.0, 1.0, 1.0], [32, 64, 64], marks=pytest.mark.slow),
        ("brain_structures", ",".join(f"left {n}" for n in "abcdefghijklmno"), [2.0, 2.0, 2.0], [96, 96, 96]),
    ],
)
def test_real_data(bundle: Path, folder: str, classes: str, spacing: list[float], roi: list[int]) -> None:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"there is no ../shared/data/{folder}")
    images, labels = (str(SHARED / folder / part) for part in ("imagesTr", "labelsTr"))
    new_dataset("mine", images, labels, classes, "MR", bundle_root=str(bundle), sample=2, progress=False)
    content = overlay(bundle)
    assert content["spacing"] == spacing
    assert content["roi_size"] == roi
    assert len(load_datalist(bundle / "data/mine")) == len(list((SHARED / folder / "imagesTr").glob("*.nii.gz")))


class TestNnunetFolder:
    @pytest.fixture
    def described(self, volumes: Path) -> Callable[..., None]:
        def write(**changes: Any) -> None:
            labels = {"background": 0, "left kidney": 1, "right kidney": 2}
            content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", **changes}
            (volumes / "dataset.json").write_text(json.dumps(content))

        return write

    def test_tells_what_the_command_is_not_told(
        self, described: Callable[..., None], volumes: Path, bundle: Path
    ) -> None:
        described()
        save(volumes / "imagesTs/pat9_0_0000.nii.gz", np.zeros((20, 40, 12)))
        new_dataset("mine", str(volumes), bundle_root=str(bundle), progress=False)
        datalist = json.loads((bundle / "data/mine/dataset.json").read_text())
        assert [len(datalist[section]) for section in ("training", "test")] == [6, 1]
        assert datalist["modality"] == {"0": "CT"}
        table = yaml.safe_load((bundle / "configs/concepts/mine.yaml").read_text())
        assert [entry["name"] for entry in table["classes"]] == ["left kidney", "right kidney"]
        assert "label_transforms" not in yaml.safe_load((bundle / "configs/dataset_mine.yaml").read_text())

    def test_regions_and_other_values(self, described: Callable[..., None], volumes: Path) -> None:
        described(labels={"background": 0, "whole": [1, 2], "core": 2}, channel_names={"0": "T1", "1": "FLAIR"})
        found = read_nnunet_folder(volumes)
        assert (found.classes, found.label_values, found.modality) == (["whole", "core"], [[1, 2], 2], "MR")

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"labels": {"0": "background"}}, "no `labels` with a background"),
            ({"labels": {"background": 0, "ignore": 3}}, "ignore label"),
            ({"file_ending": ".png"}, r"files of another kind than .* \(.png\)"),
            ({"labels": {"background": 0, "liver": "$1"}}, r"'liver' begins with"),
        ],
    )
    def test_what_cannot_be_read(
        self, described: Callable[..., None], volumes: Path, changes: dict[str, Any], said: str
    ) -> None:
        described(**changes)
        with pytest.raises(ValueError, match=said):
            read_nnunet_folder(volumes)

    def test_folder_without_a_description(self, volumes: Path, bundle: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"has no dataset.json; expected a data set folder of nnU-Net"):
            new_dataset("mine", str(volumes / "imagesTr"), bundle_root=str(bundle))


def test_words_of_known_classes_are_offered(bundle_root: Path) -> None:
    known = known_words(bundle_root / "configs/concepts", "CT")
    table = yaml.safe_load(table_text(["Spleen", "cyst"], "CT", known))
    spleen, cyst = table["classes"]
    phantom = ConceptTable.load(bundle_root / "configs/concepts/amos22.yaml")
    row = dict(zip(phantom.concepts, phantom.sentences[phantom.classes.index("spleen")], strict=True))
    assert {field: spleen[field] for field in row if field != "title"} == {f: t for f, t in row.items() if f != "title"}
    assert cyst["shape"].startswith("TODO")
    assert "spleen" not in known_words(bundle_root / "configs/concepts", "US")
