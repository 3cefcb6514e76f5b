"""Datalists from official folders: trees of empty files in each layout, and everything that can be wrong with one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.data.datalist import evaluation_items, load_datalist, training_items, validation_items
from scripts.data.public.datalists import LAYOUTS, make_datalist
from scripts.data.public.layouts import AMOS_ORGANS, MMWHS_LABELS
from scripts.words.table import ConceptTable

MakeTree = Callable[..., Path]


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def amos(tmp_path: Path) -> Path:
    """Five CT and two MR cases to train on, two CT and one MR to validate on, one without a label."""
    root = tmp_path / "amos22"
    for section, ids in (("Tr", (1, 4, 5, 6, 500, 501, 600)), ("Va", (8, 13, 507)), ("Ts", (2, 508))):
        for number in ids:
            touch(root / f"images{section}/amos_{number:04}.nii.gz")
            if section != "Ts":
                touch(root / f"labels{section}/amos_{number:04}.nii.gz")
    touch(root / "imagesTr/._amos_0001.nii.gz")  # what macOS leaves in archives
    (root / "dataset.json").write_text('{"training": []}')
    return root


@pytest.fixture
def mmwhs(tmp_path: Path) -> Path:
    root = tmp_path / "mmwhs"
    for kind in ("ct", "mr"):
        for number in range(1001, 1021):
            for part in ("image", "label"):
                touch(root / f"{kind}_train/{kind}_train_{number}_{part}.nii.gz")
            touch(root / f"{kind}_test/{kind}_test_{number + 1000}_image.nii.gz")
    return root


@pytest.fixture
def decathlon(tmp_path: Path) -> MakeTree:
    def make(name: str = "Task01_BrainTumour", count: int = 6, channels: int = 4, labels: int = 4) -> Path:
        root = tmp_path / name
        cases = [f"BRATS_{number:03}.nii.gz" for number in range(1, count + 1)]
        for case in cases:
            touch(root / "imagesTr" / case)
            touch(root / "labelsTr" / case)
        names = ["background", "edema", "non-enhancing tumor", "enhancing tumour"][:labels]
        content = {
            "name": "BRATS",
            "modality": dict(zip("0123", ["FLAIR", "T1w", "t1gd", "T2w"][:channels], strict=False)),
            "labels": {str(value): name for value, name in enumerate(names)},
            "training": [{"image": f"./imagesTr/{case}", "label": f"./labelsTr/{case}"} for case in cases],
            "test": ["./imagesTs/BRATS_485.nii.gz"],
        }
        (root / "dataset.json").write_text(json.dumps(content))
        return root

    return make


def cases(path: Path, section: str = "training") -> list[str]:
    return [item["case"] for item in load_datalist(path, section)]


def content(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


class TestAmos22:
    def test_takes_the_ct_cases_of_the_labelled_sections(self, amos: Path) -> None:
        path = make_datalist("amos22", str(amos), num_folds=2)
        assert path == amos / "datalist_amos22.json"
        assert cases(path) == ["amos_0001", "amos_0004", "amos_0005", "amos_0006", "amos_0500"]
        assert cases(path, "test") == ["amos_0008", "amos_0013"]
        first = load_datalist(path, "test")[0]
        assert first["image"] == str(amos / "imagesVa/amos_0008.nii.gz")
        assert first["label"] == str(amos / "labelsVa/amos_0008.nii.gz")

    def test_folds_are_written_down_and_do_not_depend_on_the_seed_of_a_training(self, amos: Path) -> None:
        path = make_datalist("amos22", str(amos), num_folds=2)
        held_out = [[i["case"] for i in validation_items(path, fold, 2, seed=fold)] for fold in (0, 1)]
        assert sorted(held_out[0] + held_out[1]) == cases(path)
        assert sorted(map(len, held_out)) == [2, 3]
        with pytest.raises(ValueError, match="fold 2 does not exist"):
            training_items(path, 2, 2)

    def test_official_dataset_json_stays(self, amos: Path) -> None:
        make_datalist("amos22", str(amos), num_folds=2)
        assert content(amos / "dataset.json") == {"training": []}

    def test_labels_are_those_of_the_concept_table(self, amos: Path, bundle_root: Path) -> None:
        labels = content(make_datalist("amos22", str(amos), num_folds=2))["labels"]
        table = ConceptTable.load(bundle_root / "configs/concepts/amos22.yaml")
        assert list(labels.values())[1:] == list(AMOS_ORGANS)
        assert len(table.classes) == len(AMOS_ORGANS) == 15
        for named, official in zip(table.classes, AMOS_ORGANS, strict=True):
            assert set(official.split("/")[0].split()) & set(named.replace("/", " ").split()), (named, official)

    def test_paper_sizes_can_be_asked_for(self, amos: Path) -> None:
        """200/100 in small: they only say what the official sections must have."""
        assert len(cases(make_datalist("amos22", str(amos), split="5/2"))) == 5
        with pytest.raises(ValueError, match="has 2 test cases of its own; expected that as the last number"):
            make_datalist("amos22", str(amos), split="4/3", overwrite=True)
        with pytest.raises(ValueError, match="split 4 adds up to 4 cases, but there are 5"):
            make_datalist("amos22", str(amos), split="4/2", overwrite=True)
        with pytest.raises(ValueError, match=r"The split is 160; expected numbers of cases"):
            make_datalist("amos22", str(amos), split=160, overwrite=True)  # type: ignore[arg-type] - Fire's int

    def test_incomplete_release_is_reported(self, amos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make_datalist("amos22", str(amos))
        said = capsys.readouterr().out
        assert "5 training cases, folds of 2, 2, 1; 2 test cases" in said
        assert "the whole release has 200 + 100 labelled cases" in said

    def test_missing_label_raises(self, amos: Path) -> None:
        (amos / "labelsTr/amos_0004.nii.gz").unlink()
        with pytest.raises(FileNotFoundError, match=r"imagesTr have nothing in labelsTr, such as 'amos_0004'"):
            make_datalist("amos22", str(amos))

    def test_missing_image_raises(self, amos: Path) -> None:
        (amos / "imagesVa/amos_0013.nii.gz").unlink()
        with pytest.raises(FileNotFoundError, match=r"labelsVa have nothing in imagesVa, such as 'amos_0013'"):
            make_datalist("amos22", str(amos))

    def test_missing_folder_is_named_with_what_was_found(self, amos: Path) -> None:
        (amos / "labelsVa").rename(amos / "labels_val")
        with pytest.raises(FileNotFoundError, match=r"missing labelsVa/; found dataset.json, imagesTr, .*labels_val"):
            make_datalist("amos22", str(amos))

    def test_another_layout_one_level_down_is_no_hint(self, amos: Path) -> None:
        (amos / "labelsVa").rename(amos / "labels_val")
        with pytest.raises(FileNotFoundError, match=r"Complete or correct it\.$"):
            make_datalist("amos22", str(amos.parent))

    def test_folder_one_level_up_is_reported(self, amos: Path) -> None:
        with pytest.raises(FileNotFoundError, match=rf"one level down: give '{amos}'"):
            make_datalist("amos22", str(amos.parent))

    def test_absent_folder_raises(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"missing imagesTr/.*found no such folder"):
            make_datalist("amos22", str(tmp_path / "absent"))

    def test_foreign_name_raises(self, amos: Path) -> None:
        touch(amos / "imagesTr/liver_1.nii.gz")
        with pytest.raises(ValueError, match=r"1 NIfTI file\(s\) of another name, such as liver_1.nii.gz"):
            make_datalist("amos22", str(amos))

    def test_case_that_is_there_twice_raises(self, amos: Path) -> None:
        touch(amos / "imagesTr/amos_0004.nii")
        with pytest.raises(ValueError, match="Case 'amos_0004' is there twice"):
            make_datalist("amos22", str(amos))

    def test_case_in_training_and_test_raises(self, amos: Path) -> None:
        touch(amos / "imagesVa/amos_0004.nii.gz")
        touch(amos / "labelsVa/amos_0004.nii.gz")
        with pytest.raises(ValueError, match="such as 'amos_0004', are in training and test"):
            make_datalist("amos22", str(amos))

    def test_folder_of_mr_alone_raises(self, amos: Path) -> None:
        for path in [*amos.glob("*Va/amos_00*")]:
            path.unlink()
        with pytest.raises(ValueError, match=r"imagesVa' holds no CT case: .*found 1 with higher ids"):
            make_datalist("amos22", str(amos))


class TestMmwhs:
    @pytest.mark.parametrize(("layout", "kind"), [("mmwhs_ct", "ct"), ("mmwhs_mr", "mr")])
    def test_pairs_image_and_label_of_the_training_folder(self, mmwhs: Path, layout: str, kind: str) -> None:
        path = make_datalist(layout, str(mmwhs))
        items = load_datalist(path)
        assert [item["case"] for item in items] == [f"{kind}_train_{n}" for n in range(1001, 1021)]
        assert items[0]["image"].endswith(f"{kind}_train/{kind}_train_1001_image.nii.gz")
        assert items[0]["label"].endswith(f"{kind}_train/{kind}_train_1001_label.nii.gz")
        assert Counter(item["fold"] for item in items) == {0: 7, 1: 7, 2: 6}
        assert "test" not in content(path)

    def test_values_are_named_in_the_order_of_the_table(self, mmwhs: Path, bundle_root: Path) -> None:
        labels = content(make_datalist("mmwhs_ct", str(mmwhs)))["labels"]
        assert labels["205"] == "left ventricular myocardium"
        for kind in ("ct", "mr"):
            table = ConceptTable.load(bundle_root / f"configs/concepts/mmwhs_{kind}.yaml")
            assert table.classes == tuple(MMWHS_LABELS.values())

    def test_fixed_split(self, mmwhs: Path) -> None:
        with pytest.raises(ValueError, match=r"14/2/4 names the cases to validate on, .*; num_folds is 3"):
            make_datalist("mmwhs_mr", str(mmwhs), split="14/2/4", num_folds=3)
        path = make_datalist("mmwhs_mr", str(mmwhs), split="14/2/4")
        parts = training_items(path, 0, 1), validation_items(path, 0, 1), evaluation_items(path, "test", 0, 1)
        assert [len(part) for part in parts] == [14, 2, 4]
        assert len({item["case"] for part in parts for item in part}) == 20
        with pytest.raises(ValueError, match="fold 1 does not exist; with num_folds 1"):
            training_items(path, 1, 1)
        with pytest.raises(ValueError, match="leave fold 1 of 3 empty; correct num_folds"):
            training_items(path, 0, 3)

    def test_other_modality_is_not_taken_for_it(self, mmwhs: Path) -> None:
        (mmwhs / "mr_train").rename(mmwhs / "somewhere")
        with pytest.raises(FileNotFoundError, match=r"MM-WHS \(mr_train/.*missing mr_train/; found ct_test, ct_train"):
            make_datalist("mmwhs_mr", str(mmwhs))

    def test_label_without_image_raises(self, mmwhs: Path) -> None:
        (mmwhs / "ct_train/ct_train_1007_image.nii.gz").unlink()
        with pytest.raises(FileNotFoundError, match="the labels have nothing in the images, such as 'ct_train_1007'"):
            make_datalist("mmwhs_ct", str(mmwhs))


class TestDecathlon:
    def test_paper_split_of_the_whole_brain_set(self, decathlon: MakeTree) -> None:
        path = make_datalist("msd_brain", str(decathlon(count=484)))
        sizes = [len(part(path, 0, 1)) for part in (training_items, validation_items)]
        assert [*sizes, len(evaluation_items(path, "test", 0, 1))] == [349, 39, 96]
        assert not set(cases(path)) & set(cases(path, "test"))

    def test_test_section_can_be_had_with_folds(self, decathlon: MakeTree) -> None:
        path = make_datalist("msd_brain", str(decathlon()), split="4/2", num_folds=2)
        assert Counter(item["fold"] for item in load_datalist(path)) == {0: 2, 1: 2}
        assert len(cases(path, "test")) == 2

    def test_incomplete_brain_set_needs_a_split(self, decathlon: MakeTree) -> None:
        with pytest.raises(ValueError, match=r"349/39/96 adds up to 484 cases, but there are 6\. Complete .* `split`"):
            make_datalist("msd_brain", str(decathlon()))

    @pytest.mark.parametrize("kept", [{"channels": 1}, {"labels": 3}])
    def test_other_task_is_not_taken_for_the_brain(self, decathlon: MakeTree, kept: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="is not the Decathlon's Task01_BrainTumour: expected 4 modalities"):
            make_datalist("msd_brain", str(decathlon(**kept)), split="4/1/1")

    def test_any_task(self, decathlon: MakeTree) -> None:
        path = make_datalist("msd", str(decathlon("Task04_Hippocampus", channels=1, labels=3)))
        assert path.name == "datalist_msd.json"
        assert len(cases(path)) == 6
        assert content(path)["labels"] == {"0": "background", "1": "edema", "2": "non-enhancing tumor"}
        assert "test" not in content(path), "the official test cases have no labels"

    def test_no_dataset_json_raises(self, decathlon: MakeTree) -> None:
        root = decathlon()
        (root / "dataset.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"has no dataset.json \(found: imagesTr, labelsTr\)"):
            make_datalist("msd_brain", str(root))

    def test_absent_file_raises(self, decathlon: MakeTree) -> None:
        root = decathlon()
        (root / "labelsTr/BRATS_003.nii.gz").unlink()
        with pytest.raises(FileNotFoundError, match="case 'BRATS_003'"):
            make_datalist("msd", str(root))

    def test_patients_stay_together(self, decathlon: MakeTree, tmp_path: Path) -> None:
        table = tmp_path / "patients.csv"
        table.write_text("case,patient\n" + "".join(f"BRATS_{n:03},p{n % 3}\n" for n in range(1, 13)))
        path = make_datalist("msd_brain", str(decathlon(count=12)), split="8/4", num_folds=2, patients=str(table))
        items = load_datalist(path)
        assert len({(item["patient"], item["fold"]) for item in items}) == 2
        test = {item["patient"] for item in load_datalist(path, "test")}
        assert len(test) == 1
        assert not test & {item["patient"] for item in items}

    def test_a_patient_that_is_code_is_refused_and_nothing_written(self, decathlon: MakeTree, tmp_path: Path) -> None:
        table, root = tmp_path / "patients.csv", decathlon(count=12)
        table.write_text("case,patient\n" + "".join(f"BRATS_{n:03},$print({n})\n" for n in range(1, 13)))
        with pytest.raises(ValueError, match=r"'patient' begins with '\$'"):
            make_datalist("msd_brain", str(root), str(tmp_path / "list.json"), split="8/4", patients=str(table))
        assert not (tmp_path / "list.json").exists()


class TestWriting:
    def test_split_depends_on_the_seed_alone(self, mmwhs: Path, tmp_path: Path) -> None:
        def made(name: str, seed: int) -> list[Any]:
            path = make_datalist("mmwhs_ct", str(mmwhs), str(tmp_path / name), seed=seed)
            return content(path)["training"]

        assert made("a.json", 1) == made("b.json", 1) != made("c.json", 2)

    def test_another_list_is_not_overwritten_unless_asked(self, mmwhs: Path) -> None:
        path = make_datalist("mmwhs_ct", str(mmwhs))
        before = path.read_text()
        assert make_datalist("mmwhs_ct", str(mmwhs)) == path  # the same once more: nothing to do
        with pytest.raises(FileExistsError, match="is there already and differs; nothing was written"):
            make_datalist("mmwhs_ct", str(mmwhs), seed=1)
        assert path.read_text() == before
        make_datalist("mmwhs_ct", str(mmwhs), seed=1, overwrite=True)
        assert path.read_text() != before

    def test_official_list_is_never_overwritten(self, amos: Path) -> None:
        with pytest.raises(FileExistsError, match="is the data set's own"):
            make_datalist("amos22", str(amos), str(amos / "dataset.json"), overwrite=True)

    def test_list_within_the_data_set_moves_with_it(self, mmwhs: Path, tmp_path: Path) -> None:
        path = make_datalist("mmwhs_ct", str(mmwhs))
        assert content(path)["training"][0]["image"] == "ct_train/ct_train_1001_image.nii.gz"
        mmwhs.rename(tmp_path / "moved")
        assert len(cases(tmp_path / "moved" / path.name)) == 20

    def test_list_elsewhere_has_whole_paths(self, mmwhs: Path, tmp_path: Path) -> None:
        path = make_datalist("mmwhs_ct", str(mmwhs), str(tmp_path / "lists/heart.json"))
        assert content(path)["training"][0]["image"] == str(mmwhs / "ct_train/ct_train_1001_image.nii.gz")

    def test_leaves_nothing_beside_the_list(self, mmwhs: Path) -> None:
        make_datalist("mmwhs_ct", str(mmwhs))
        assert {p.name for p in mmwhs.iterdir() if p.is_file()} == {"datalist_mmwhs_ct.json"}

    @pytest.mark.parametrize("split", ["349", "10/x", "1/2/3/4", "10/-1/11", [1]])
    def test_split_that_is_none_raises(self, mmwhs: Path, split: Any) -> None:
        with pytest.raises(ValueError, match="expected numbers of cases: training/validation/test"):
            make_datalist("mmwhs_ct", str(mmwhs), split=split)

    def test_split_with_nothing_to_validate_on_raises(self, mmwhs: Path) -> None:
        with pytest.raises(ValueError, match="leaves nothing to train or to validate on"):
            make_datalist("mmwhs_ct", str(mmwhs), split="16/0/4")

    def test_unknown_layout_raises(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=f"no layout 'amos'; expected one of {', '.join(LAYOUTS)}"):
            make_datalist("amos", str(tmp_path))
