"""Folds and parts of given sizes: disjoint, complete, the same in whatever order the cases are listed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from scripts.data.cases import Item
from scripts.data.splits import (
    fold_split,
    require_apart,
    require_unseen,
    split_by_size,
    split_folds,
    with_patients,
)


def items(count: int, **extra: object) -> list[Item]:
    return [{"image": f"/i/{n}.nii.gz", "label": f"/l/{n}.nii.gz", "case": f"c{n:03d}", **extra} for n in range(count)]


def numbered(count: int, per_patient: int = 1) -> list[Item]:
    named = [{"image": f"/i/{n}", "label": f"/l/{n}", "case": f"c{n:02}"} for n in range(count)]
    return [{**item, "patient": f"p{n // per_patient}"} if per_patient > 1 else item for n, item in enumerate(named)]


def names(part: list[Item]) -> list[str]:
    return [item["case"] for item in part]


@pytest.mark.parametrize(("count", "num_folds"), [(7, 3), (6, 2), (3, 3), (200, 5)])
def test_folds_are_disjoint_complete_and_even(count: int, num_folds: int) -> None:
    folds = split_folds(items(count), num_folds, seed=1)
    assert sorted(name for part in folds for name in names(part)) == names(items(count))
    sizes = [len(part) for part in folds]
    assert len(sizes) == num_folds
    assert max(sizes) - min(sizes) <= 1


def test_training_and_validation_share_nothing_and_leave_nothing_out() -> None:
    cases = items(10)
    held_out = []
    for fold in range(3):
        training, validation = fold_split(cases, fold, 3, seed=0)
        assert not set(names(training)) & set(names(validation))
        assert sorted(names(training) + names(validation)) == names(cases)
        held_out += names(validation)
    assert sorted(held_out) == names(cases)


def test_listing_order_does_not_matter() -> None:
    shuffled = items(20)
    random.Random(0).shuffle(shuffled)
    assert split_folds(shuffled, 3, seed=4) == split_folds(items(20), 3, seed=4)
    assert fold_split(shuffled, 1, 3, seed=4) == fold_split(items(20), 1, 3, seed=4)


def test_the_split_of_a_seed_is_fixed_for_good() -> None:
    assert [names(part) for part in split_folds(items(6), 3, seed=0)] == [
        ["c000", "c005"],
        ["c001", "c002"],
        ["c003", "c004"],
    ]


def test_another_seed_gives_another_split() -> None:
    assert split_folds(items(20), 3, seed=0) != split_folds(items(20), 3, seed=1)


def test_cases_of_one_patient_stay_together() -> None:
    cases = [{"image": f"/i/{n}.nii.gz", "case": f"c{n}", "patient": f"p{n // 2}"} for n in range(12)]
    for part in split_folds(cases, 3, seed=0):
        patients = [item["patient"] for item in part]
        assert all(patients.count(patient) == 2 for patient in patients)


def test_fold_keys_win_over_the_seed() -> None:
    cases = [{**item, "fold": n % 2} for n, item in enumerate(items(5))]
    for seed in (0, 1):
        assert names(fold_split(cases, 1, 2, seed)[1]) == ["c001", "c003"]
        assert names(fold_split(cases, 1, 2, seed)[0]) == ["c000", "c002", "c004"]


@pytest.mark.parametrize("fold", [-1, 3])
def test_fold_out_of_range_raises(fold: int) -> None:
    with pytest.raises(ValueError, match=f"fold {fold} does not exist; with num_folds 3 expected 0 to 2"):
        fold_split(items(6), fold, 3)


def test_single_fold_raises() -> None:
    with pytest.raises(ValueError, match="num_folds is 1; expected 2 or more"):
        split_folds(items(6), 1)


def test_more_folds_than_patients_raises() -> None:
    with pytest.raises(ValueError, match="2 patients cannot be split into 3 folds"):
        split_folds(items(2), 3)


@pytest.mark.parametrize("wrong", [None, 2, -1, "1", True])
def test_fold_key_that_is_missing_or_out_of_range_raises(wrong: object) -> None:
    cases = items(4, fold=0)
    cases[1]["fold"] = 1
    cases[3]["fold"] = wrong
    with pytest.raises(ValueError, match=r"Case 'c003' has fold .*; expected a number from 0 to 1"):
        split_folds(cases, 2)


def test_fold_keys_that_part_a_patient_raise() -> None:
    cases = [*items(2, patient="anna", fold=0), {"image": "", "case": "x", "fold": 1}]
    cases[1]["fold"] = 1
    with pytest.raises(ValueError, match="Patient 'anna' is in folds 0 and 1"):
        split_folds(cases, 2)


def test_fold_keys_that_leave_a_fold_empty_raise() -> None:
    with pytest.raises(ValueError, match="leave fold 1 of 2 empty"):
        split_folds(items(4, fold=0), 2)


class TestFixedSplit:
    """Cases that are never held out, beside one fold to validate on."""

    def cases(self) -> list[Item]:
        return [{**item, "fold": 0 if n in (1, 3) else "training"} for n, item in enumerate(items(5))]

    def test_one_fold_is_enough(self) -> None:
        training, validation = fold_split(self.cases(), 0, 1)
        assert names(training) == ["c000", "c002", "c004"]
        assert names(validation) == ["c001", "c003"]

    def test_the_other_fold_does_not_exist(self) -> None:
        with pytest.raises(ValueError, match="fold 1 does not exist; with num_folds 1 expected 0 to 0"):
            fold_split(self.cases(), 1, 1)

    def test_nothing_to_train_on_raises(self) -> None:
        with pytest.raises(ValueError, match="none is left to train on"):
            fold_split(items(3, fold=0), 0, 1)

    def test_patient_in_training_and_in_a_fold_raises(self) -> None:
        cases = self.cases()
        cases[0]["patient"] = cases[1]["patient"] = "anna"
        with pytest.raises(ValueError, match="Patient 'anna' is in folds training and 0"):
            fold_split(cases, 0, 1)


def test_case_in_two_folds_raises() -> None:
    cases = [*items(3, fold=0), {**items(1)[0], "fold": 1}]
    with pytest.raises(ValueError, match="Case 'c000' is listed twice, in the folds 0 and 1"):
        split_folds(cases, 2)


def test_case_that_is_listed_twice_raises() -> None:
    with pytest.raises(ValueError, match="Case 'c001' is listed twice; expected every case once"):
        split_folds([*items(3), items(2)[1]], 3)


@pytest.mark.parametrize("images", ["/i/0.nii.gz", ["/i/7_t1.nii.gz", "/i/0.nii.gz"]])
def test_one_image_in_two_folds_under_two_names_raises(images: object) -> None:
    cases = [{**item, "fold": n % 2} for n, item in enumerate(items(7))]
    cases.append({"image": images, "label": "/l/0.nii.gz", "case": "copy", "fold": 1})
    with pytest.raises(ValueError, match=r"'c000' and 'copy' are one image, '/i/0.nii.gz', in the folds 0 and 1"):
        split_folds(cases, 2)


def test_one_image_under_two_names_stays_together_as_one_patient() -> None:
    cases = items(6)
    cases.append({**cases[0], "label": "/l/other_reader.nii.gz", "case": "copy"})
    cases = [{**item, "patient": item["image"]} for item in cases]
    assert any({"c000", "copy"} <= set(names(part)) for part in split_folds(cases, 3))


class TestSplitBySize:
    def test_parts_have_their_sizes_and_all_cases(self) -> None:
        parts = split_by_size(numbered(12), (7, 2, 3), seed=0)
        assert [len(part) for part in parts] == [7, 2, 3]
        assert sorted(name for part in parts for name in names(part)) == names(numbered(12))

    def test_order_of_the_cases_does_not_matter(self) -> None:
        assert (
            split_by_size(numbered(12)[::-1], (7, 5), 3)
            == split_by_size(numbered(12), (7, 5), 3)
            != split_by_size(numbered(12), (7, 5), 4)
        )

    def test_the_split_of_a_seed_is_fixed_for_good(self) -> None:
        assert [names(part) for part in split_by_size(numbered(6), (3, 1, 2), seed=0)] == [
            ["c01", "c02", "c03"],
            ["c05"],
            ["c00", "c04"],
        ]

    def test_patients_are_not_parted(self) -> None:
        parts = split_by_size(numbered(12, per_patient=2), (6, 2, 4), seed=0)
        assert [len(part) for part in parts] == [6, 2, 4]
        patients = [{item["patient"] for item in part} for part in parts]
        assert [len(part) for part in patients] == [3, 1, 2]
        assert len(set.union(*patients)) == 6

    def test_sizes_that_would_part_a_patient_raise(self) -> None:
        with pytest.raises(ValueError, match="9/3 cannot be met without parting a patient"):
            split_by_size(numbered(12, per_patient=2), (9, 3), seed=0)

    @pytest.mark.parametrize("sizes", [(5, 5), (13, -1)])
    def test_other_number_of_cases_raises(self, sizes: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match=r"adds up to 1\d cases, but there are 12"):
            split_by_size(numbered(12), sizes, seed=0)


class TestPatients:
    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        path = tmp_path / "patients.csv"
        path.write_text("site,case,patient\nA,c00,anna\nA,c01,anna\nB,c02,ben\nB,c99,zoe\n")
        return path

    def test_are_read_by_the_name_of_the_case(self, table: Path) -> None:
        assert [item["patient"] for item in with_patients(numbered(3), table)] == ["anna", "anna", "ben"]

    def test_case_that_is_not_listed_raises(self, table: Path) -> None:
        with pytest.raises(ValueError, match=r"no patient for 2 case\(s\), such as 'c03'"):
            with_patients(numbered(5), table)

    def test_case_of_two_patients_raises(self, table: Path) -> None:
        table.write_text(table.read_text() + "A,c00,ben\n")
        with pytest.raises(ValueError, match="case 'c00' two patients"):
            with_patients(numbered(3), table)

    def test_missing_column_raises(self, table: Path) -> None:
        table.write_text("case,subject\nc00,anna\n")
        with pytest.raises(ValueError, match=r"has the columns \['case', 'subject'\]; expected case and patient"):
            with_patients(numbered(1), table)

    def test_no_table_raises(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no table of patients .*none\.csv"):
            with_patients(numbered(1), tmp_path / "none.csv")


class TestLeaks:
    def test_shared_patient_raises(self) -> None:
        with pytest.raises(ValueError, match="such as 'p1', are in training and test"):
            require_apart(numbered(4, per_patient=2)[:3], numbered(4, per_patient=2)[3:])

    def test_one_name_in_two_folders_is_no_leak_in_a_datalist(self) -> None:
        test = [{**item, "image": f"/other{item['image']}"} for item in numbered(3)]
        require_unseen(numbered(3), test)

    @pytest.mark.parametrize("key", ["image", "patient"])
    def test_shared_image_or_patient_raises(self, key: str) -> None:
        training = [{"image": ["/i/0", "/i/1"], "case": "a", "patient": "anna"}]
        test = [{"image": "/i/9", "case": "b", "patient": "ben"}]
        test[0][key] = {"image": "/i/1", "patient": "anna"}[key]
        with pytest.raises(ValueError, match="such as 'b', are of an image or a patient that is also in 'training'"):
            require_unseen(training, test)
