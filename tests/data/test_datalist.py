"""Datalists: what is read from a `dataset.json`, a file or a folder, and what is said when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from scripts.data.datalist import (
    datalist_sections,
    evaluation_items,
    load_datalist,
    training_items,
    validation_items,
)

HIPPOCAMPUS = Path(__file__).parents[2] / ".." / "shared" / "data" / "Task04_Hippocampus"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def write(root: Path, content: Any, name: str = "dataset.json") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return root / name


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four labelled training cases, listed backwards, and two test images as bare paths."""
    cases = [f"heart_{n}.nii.gz" for n in (4, 3, 2, 1)]
    touch(tmp_path, *(f"{folder}/{case}" for case in cases for folder in ("imagesTr", "labelsTr")))
    touch(tmp_path, "imagesTs/heart_8.nii.gz", "imagesTs/heart_9.nii.gz")
    training = [{"image": f"./imagesTr/{case}", "label": f"./labelsTr/{case}"} for case in cases]
    test = ["./imagesTs/heart_8.nii.gz", "./imagesTs/heart_9.nii.gz"]
    write(tmp_path, {"name": "Heart", "labels": {"0": "background"}, "training": training, "test": test})
    return tmp_path


class TestLoadDatalist:
    def test_paths_are_absolute_and_cases_are_named(self, dataset: Path) -> None:
        items = load_datalist(dataset)
        assert [item["case"] for item in items] == ["heart_4", "heart_3", "heart_2", "heart_1"]
        assert items[0] == {
            "image": str(dataset / "imagesTr" / "heart_4.nii.gz"),
            "label": str(dataset / "labelsTr" / "heart_4.nii.gz"),
            "case": "heart_4",
        }

    def test_folder_may_be_relative_to_the_current_one(self, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(dataset.parent)
        assert load_datalist(dataset.name) == load_datalist(dataset)

    def test_labels_are_kept_where_they_are_if_they_may_lack(self, dataset: Path) -> None:
        content = json.loads((dataset / "dataset.json").read_text())
        content["test"] = ["imagesTs/heart_8.nii.gz", content["training"][0]]
        write(dataset, content)
        assert ["label" in item for item in load_datalist(dataset, "test", None)] == [False, True]

    def test_files_may_be_absent_if_that_is_said(self, dataset: Path) -> None:
        (dataset / "imagesTr" / "heart_4.nii.gz").unlink()
        assert load_datalist(dataset, must_exist=False)[0]["case"] == "heart_4"
        with pytest.raises(FileNotFoundError, match=r"heart_4"):
            load_datalist(dataset)

    def test_sections_are_the_lists_with_entries(self, dataset: Path) -> None:
        assert datalist_sections(dataset) == ["training", "test"]
        write(dataset, {"name": "Heart", "labels": {}, "training": ["a.nii.gz"], "test": []})
        assert datalist_sections(dataset) == ["training"]

    def test_json_file_of_another_name_is_taken_with_paths_from_its_own_folder(self, dataset: Path) -> None:
        other = write(dataset / "lists", {"validation": [{"image": "../imagesTr/heart_1.nii.gz"}]}, "mine.json")
        items = load_datalist(other, "validation", labelled=False)
        assert items == [{"image": str(dataset / "imagesTr" / "heart_1.nii.gz"), "case": "heart_1"}]

    def test_bare_paths_are_cases_without_labels(self, dataset: Path) -> None:
        assert [item["case"] for item in load_datalist(dataset, "test", labelled=False)] == [
            "heart_8",
            "heart_9",
        ]
        with pytest.raises(ValueError, match=r"entry 0 of section 'test'.*has label None; expected a path"):
            load_datalist(dataset, "test")

    def test_labels_are_left_out_when_not_asked_for(self, dataset: Path) -> None:
        assert all(set(item) == {"image", "case"} for item in load_datalist(dataset, labelled=False))

    @pytest.mark.parametrize(
        ("files", "case"),
        [
            (["im/b_0000.nii.gz", "im/b_0001.nii.gz"], "b"),
            (["im/b_01-t1.nii.gz", "im/b_01-t2.nii.gz"], "b_01"),
            (["b_01/t1.nii.gz", "b_01/t2.nii.gz"], "b_01"),
            (["im/b_01.nii.gz"], "b_01"),
        ],
    )
    def test_one_file_a_channel(self, tmp_path: Path, files: list[str], case: str) -> None:
        touch(tmp_path, *files, "l.nii.gz")
        write(tmp_path, {"training": [{"image": files, "label": "l.nii.gz"}]})
        item = load_datalist(tmp_path)[0]
        assert item["image"] == [str(tmp_path / file) for file in files]
        assert item["case"] == case

    def test_own_keys_for_case_patient_and_fold_are_kept_and_others_dropped(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/image.nii.gz", "b/image.nii.gz")
        entries = [
            {"image": f"{c}/image.nii.gz", "case": c, "patient": "p", "fold": 1, "image_note": "x"} for c in "ab"
        ]
        write(tmp_path, {"training": entries})
        items = load_datalist(tmp_path, labelled=False)
        assert [item["case"] for item in items] == ["a", "b"]
        assert set(items[0]) == {"image", "case", "patient", "fold"}
        assert (items[0]["patient"], items[0]["fold"]) == ("p", 1)

    def test_absent_folder_raises_and_says_how_to_get_data(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no data set folder '.*/none'.*imagesTr.*`dataset_dir`.*phantom"):
            load_datalist(tmp_path / "none")

    def test_folder_without_datalist_raises_and_names_what_it_holds(self, tmp_path: Path) -> None:
        touch(tmp_path, "readme.txt")
        with pytest.raises(FileNotFoundError, match=r"has no dataset\.json \(found: readme\.txt\)"):
            load_datalist(tmp_path)

    def test_absent_json_raises(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"There is no datalist '.*mine\.json'"):
            load_datalist(tmp_path / "mine.json")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"training": [', r"dataset\.json' is no valid JSON: .*line 1"),
            ([1], "holds a list; expected an object"),
            ({"test": ["x"]}, "has no section 'training'.*Sections with entries: test"),
            ({"training": []}, "has an empty section 'training'.*Sections with entries: none"),
            ('{"training": ["a.nii"], "training": ["b.nii"]}', r"no valid JSON: key 'training' given twice"),
            ({"training": ["$print(1).nii"]}, r"dataset\.json': 'training', entry 0 begins with '\$'"),
            ({"training": [{"image": {"_target_": "os.getcwd"}}]}, r"entry 0: 'image' has the key '_target_'"),
            ({"training": ["a.nii"], "name": ["%x"]}, r"dataset\.json': 'name', entry 0 begins with '%'"),
            ({"training": [{"image": "a.nii", "label": "b.nii", "patient": "@p"}]}, r"'patient' begins with '@'"),
            ({"training": [{"image": "a.nii", "label": "b.nii", "case": "../a"}]}, r"json': case becomes the name of"),
            ({"training": [{"image": "a.nii", "label": "b.nii", "case": ["a"]}]}, r"json': case must be text"),
            ({"training": {"image": "x"}}, "has no list as section 'training'"),
            ({"training": [7]}, "entry 0 of section 'training' of '.*' is 7; expected"),
            ({"training": [{"label": "x"}]}, "has image None; expected a path or a list of paths"),
            ({"training": [{"image": [], "label": "x"}]}, r"has image \[\]; expected a path"),
            ({"training": [{"image": [3], "label": "x"}]}, r"has image \[3\]; expected a path"),
            ({"training": [{"image": "x"}]}, "has label None; expected a path"),
        ],
    )
    def test_malformed_datalist_raises(self, tmp_path: Path, content: Any, message: str) -> None:
        write(tmp_path, content)
        with pytest.raises(ValueError, match=message):
            load_datalist(tmp_path)

    @pytest.mark.parametrize(("kind", "folder"), [("image", "imagesTr"), ("label", "labelsTr")])
    def test_entry_whose_file_is_absent_raises_and_is_named(self, dataset: Path, kind: str, folder: str) -> None:
        (dataset / folder / "heart_2.nii.gz").unlink()
        message = rf"1 of the files .* entry 2 \(case 'heart_2'\) names the {kind} '.*{folder}/heart_2\.nii\.gz'"
        with pytest.raises(FileNotFoundError, match=message):
            load_datalist(dataset)

    def test_absent_channel_raises(self, tmp_path: Path) -> None:
        touch(tmp_path, "a_0.nii.gz")
        write(tmp_path, {"training": [{"image": ["a_0.nii.gz", "a_1.nii.gz"]}]})
        with pytest.raises(FileNotFoundError, match=r"names the image '.*a_1\.nii\.gz'"):
            load_datalist(tmp_path, labelled=False)

    def test_duplicate_case_raises_and_names_both_files(self, tmp_path: Path) -> None:
        touch(tmp_path, "x/a.nii.gz", "y/a.nii.gz")
        write(tmp_path, {"training": ["x/a.nii.gz", "y/a.nii.gz"]})
        with pytest.raises(ValueError, match=r"Case 'a' is twice .*x/a\.nii\.gz and .*y/a\.nii\.gz"):
            load_datalist(tmp_path, labelled=False)


class TestFoldsOfADataSet:
    def test_training_and_validation_items_part_the_data_set(self, dataset: Path) -> None:
        write(dataset, {**json.loads((dataset / "dataset.json").read_text()), "labels": {"1": "aorta"}})
        with pytest.raises(ValueError, match=r"dataset\.json' names the labels 1 aorta; the concept table has 2"):
            training_items(dataset, 0, 2, 5, class_names=["aorta", "left ventricle"])
        training, validation = training_items(dataset, 0, 2, 5), validation_items(dataset, 0, 2, 5)
        assert len(training) == len(validation) == 2
        assert sorted(item["case"] for item in training + validation) == [f"heart_{n}" for n in (1, 2, 3, 4)]
        assert validation == training_items(dataset, 1, 2, 5)

    def test_fold_out_of_range_raises(self, dataset: Path) -> None:
        with pytest.raises(ValueError, match="fold 2 does not exist; with num_folds 2 expected 0 to 1"):
            validation_items(dataset, 2, 2)

    @pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="needs ../shared/data/Task04_Hippocampus")
    def test_real_decathlon_task_is_read(self) -> None:
        parts = [validation_items(HIPPOCAMPUS, fold, 3) for fold in range(3)]
        assert sorted(map(len, parts)) == [66, 67, 67]
        assert len({item["case"] for part in parts for item in part}) == 200


class TestEvaluationItems:
    def test_held_out_fold_comes_with_references_in_place_of_labels(self, dataset: Path) -> None:
        items = evaluation_items(dataset, "validation", 0, 2, seed=3)
        held_out = validation_items(dataset, 0, 2, seed=3)
        assert [(item["case"], item["reference"]) for item in items] == [(v["case"], v["label"]) for v in held_out]
        assert not any("label" in item for item in items)

    def test_test_section_without_labels_raises(self, dataset: Path) -> None:
        with pytest.raises(ValueError, match="has label None"):
            evaluation_items(dataset, "test", 0, 2)

    def test_unknown_split_raises(self, dataset: Path) -> None:
        with pytest.raises(ValueError, match=r"no split 'training'.*'validation' or 'test'"):
            evaluation_items(dataset, "training", 0, 2)

    def test_test_case_that_was_trained_on_raises(self, dataset: Path) -> None:
        content = json.loads((dataset / "dataset.json").read_text())
        content["test"] = [{**content["training"][0], "case": "by another name"}]
        (dataset / "dataset.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match="such as 'by another name', are of an image or a patient"):
            evaluation_items(dataset, "test", 0, 2)

    def test_test_section_stands_alone(self, dataset: Path) -> None:
        content = json.loads((dataset / "dataset.json").read_text())
        (dataset / "dataset.json").write_text(json.dumps({"test": content["training"]}))
        items = evaluation_items(dataset, "test", 0, 2)
        assert len(items) == len(content["training"])
        assert all({"image", "reference", "case"} <= item.keys() and "label" not in item for item in items)


def test_absent_list_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no datalist .*datalist_amos22\.json.*python -m scripts\.cli datalist"
    ):
        load_datalist(tmp_path / "datalist_amos22.json")


class TestFilesThatServeTwice:
    ENTRY: ClassVar[dict[str, Any]] = {"image": "a.nii.gz", "label": "b.nii.gz"}

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ([{"image": "a.nii.gz", "label": "a.nii.gz"}], r"has '.*/a\.nii\.gz' as an image and as a label"),
            ([ENTRY, {"image": "b.nii.gz", "label": "c.nii.gz"}], r"has '.*/b\.nii\.gz' as an image and as a label"),
            (
                [{**ENTRY, "case": "x"}, {**ENTRY, "case": "y"}],
                r"has the image '.*/a\.nii\.gz' twice, as the cases 'x' and 'y'.*the same 'patient'",
            ),
            ([{**ENTRY, "patient": {}}], r"has the patient \{\}; expected a name or a number"),
        ],
    )
    def test_are_refused(self, tmp_path: Path, entries: list[dict[str, Any]], message: str) -> None:
        touch(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz")
        write(tmp_path, {"training": entries})
        with pytest.raises(ValueError, match=message):
            load_datalist(tmp_path)

    def test_one_image_of_one_patient_may_have_two_readers(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz")
        both = [{**self.ENTRY, "case": "x", "patient": 1}, {"image": "a.nii.gz", "label": "c.nii.gz", "patient": 1}]
        write(tmp_path, {"training": both})
        assert [item["case"] for item in load_datalist(tmp_path)] == ["x", "a"]
