"""Dealing cases to sections of given sizes, and tables of patients."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.data.items import Item
from scripts.data.partition import deal, require_apart, require_unseen, with_patients


def items(count: int, per_patient: int = 1) -> list[Item]:
    named = [{"image": f"/i/{n}", "label": f"/l/{n}", "case": f"c{n:02}"} for n in range(count)]
    return [{**item, "patient": f"p{n // per_patient}"} if per_patient > 1 else item for n, item in enumerate(named)]


def names(part: list[Item]) -> list[str]:
    return [item["case"] for item in part]


class TestDeal:
    def test_parts_have_their_sizes_and_all_cases(self) -> None:
        parts = deal(items(12), (7, 2, 3), seed=0)
        assert [len(part) for part in parts] == [7, 2, 3]
        assert sorted(name for part in parts for name in names(part)) == names(items(12))

    def test_order_of_the_cases_does_not_matter(self) -> None:
        assert deal(items(12)[::-1], (7, 5), 3) == deal(items(12), (7, 5), 3) != deal(items(12), (7, 5), 4)

    def test_the_split_of_a_seed_is_fixed_for_good(self) -> None:
        assert [names(part) for part in deal(items(6), (3, 1, 2), seed=0)] == [
            ["c01", "c02", "c03"],
            ["c05"],
            ["c00", "c04"],
        ]

    def test_patients_are_not_parted(self) -> None:
        parts = deal(items(12, per_patient=2), (6, 2, 4), seed=0)
        assert [len(part) for part in parts] == [6, 2, 4]
        patients = [{item["patient"] for item in part} for part in parts]
        assert [len(part) for part in patients] == [3, 1, 2]
        assert len(set.union(*patients)) == 6

    def test_sizes_that_would_part_a_patient_raise(self) -> None:
        with pytest.raises(ValueError, match="9/3 cannot be met without parting a patient"):
            deal(items(12, per_patient=2), (9, 3), seed=0)

    @pytest.mark.parametrize("sizes", [(5, 5), (13, -1)])
    def test_other_number_of_cases_raises(self, sizes: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match=r"adds up to 1\d cases, but there are 12"):
            deal(items(12), sizes, seed=0)


class TestPatients:
    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        path = tmp_path / "patients.csv"
        path.write_text("site,case,patient\nA,c00,anna\nA,c01,anna\nB,c02,ben\nB,c99,zoe\n")
        return path

    def test_are_read_by_the_name_of_the_case(self, table: Path) -> None:
        assert [item["patient"] for item in with_patients(items(3), table)] == ["anna", "anna", "ben"]

    def test_case_that_is_not_listed_raises(self, table: Path) -> None:
        with pytest.raises(ValueError, match=r"no patient for 2 case\(s\), such as 'c03'"):
            with_patients(items(5), table)

    def test_case_of_two_patients_raises(self, table: Path) -> None:
        table.write_text(table.read_text() + "A,c00,ben\n")
        with pytest.raises(ValueError, match="case 'c00' two patients"):
            with_patients(items(3), table)

    def test_missing_column_raises(self, table: Path) -> None:
        table.write_text("case,subject\nc00,anna\n")
        with pytest.raises(ValueError, match=r"has the columns \['case', 'subject'\]; expected case and patient"):
            with_patients(items(1), table)

    def test_no_table_raises(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no table of patients .*none\.csv"):
            with_patients(items(1), tmp_path / "none.csv")


class TestLeaks:
    def test_shared_patient_raises(self) -> None:
        with pytest.raises(ValueError, match="such as 'p1', are in training and test"):
            require_apart(items(4, per_patient=2)[:3], items(4, per_patient=2)[3:])

    def test_one_name_in_two_folders_is_no_leak_in_a_datalist(self) -> None:
        test = [{**item, "image": f"/other{item['image']}"} for item in items(3)]
        require_unseen(items(3), test)

    @pytest.mark.parametrize("key", ["image", "patient"])
    def test_shared_image_or_patient_raises(self, key: str) -> None:
        training = [{"image": ["/i/0", "/i/1"], "case": "a", "patient": "anna"}]
        test = [{"image": "/i/9", "case": "b", "patient": "ben"}]
        test[0][key] = {"image": "/i/1", "patient": "anna"}[key]
        with pytest.raises(ValueError, match="such as 'b', are of an image or a patient that is also in 'training'"):
            require_unseen(training, test)
