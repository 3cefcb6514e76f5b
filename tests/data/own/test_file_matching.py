"""Which label goes with which images."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.data.own.file_matching import match_files, match_images

Pairs = dict[str, tuple[list[str], str]]


def touch(folder: Path, names: str) -> Path:
    for name in names.split():
        path = folder / (name if "." in name else f"{name}.nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def matched(tmp_path: Path, images: str, labels: str, channels: tuple[str, ...] = ()) -> Pairs:
    cases, _ = match_files(touch(tmp_path / "i", images), touch(tmp_path / "l", labels), channels)
    root = (tmp_path / "i", tmp_path / "l")
    return {
        case.name: (
            [path.relative_to(root[0]).as_posix().removesuffix(".nii.gz") for path in case.images],
            case.label.relative_to(root[1]).as_posix().removesuffix(".nii.gz") if case.label else "",
        )
        for case in cases
    }


class TestMatchFiles:
    @pytest.mark.parametrize(
        ("images", "labels", "expected"),
        [
            ("b a", "a b", {"a": (["a"], "a"), "b": (["b"], "b")}),
            ("la_0001 la_0002", "la_0001 la_0002", {"la_0001": (["la_0001"], "la_0001")}),
            ("la_003_0000 la_004_0000", "la_003 la_004", {"la_003": (["la_003_0000"], "la_003")}),
            ("la_003_0001 la_003_0000", "la_003", {"la_003": (["la_003_0000", "la_003_0001"], "la_003")}),
            ("img_0001 img_0002", "label_0001 label_0002", {"0001": (["img_0001"], "label_0001")}),
            ("img001 img002", "label001 label002", {"001": (["img001"], "label001")}),
            ("a_image b_image", "a_label b_label", {"a": (["a_image"], "a_label")}),
            ("volume-12 volume-1", "segmentation-12 segmentation-1", {"12": (["volume-12"], "segmentation-12")}),
            ("Case1_CT Case2_CT", "case1_seg case2_seg", {"case1": (["Case1_CT"], "case1_seg")}),
            (
                "image_003_0001 image_003_0000",
                "label_003",
                {"003": (["image_003_0000", "image_003_0001"], "label_003")},
            ),
            ("p1/img p2/img", "p1/mask p2/mask", {"p1": (["p1/img"], "p1/mask"), "p2": (["p2/img"], "p2/mask")}),
            ("p1/scan p2/scan", "p1 p2", {"p1": (["p1/scan"], "p1")}),
            ("T12_T1w L1_T1w", "T12_gt L1_gt", {"t12": (["T12_T1w"], "T12_gt")}),
        ],
    )
    def test_names_with_the_usual_variants(self, tmp_path: Path, images: str, labels: str, expected: Pairs) -> None:
        found = matched(tmp_path, images, labels)
        assert {name: found[name] for name in expected} == expected

    def test_channels_by_endings_of_ones_own_come_in_the_order_given(self, tmp_path: Path) -> None:
        found = matched(tmp_path, "p1_t2 p1_flair p1_t1", "p1_seg", ("_t1", "_t2", "_flair"))
        assert found == {"p1": (["p1_t1", "p1_t2", "p1_flair"], "p1_seg")}

    def test_one_folder_for_both(self, tmp_path: Path) -> None:
        folder = touch(tmp_path, "p1/t1 p1/label p2/t1 p2/label p3 p3_seg notes.txt .hidden")
        cases, how = match_files(folder, folder)
        assert [(case.name, case.images[0].name) for case in cases] == [
            ("p1", "t1.nii.gz"),
            ("p2", "t1.nii.gz"),
            ("p3", "p3.nii.gz"),
        ]
        assert "without words" in how

    def test_files_of_one_name_are_reported_apart_by_their_folders(self, tmp_path: Path) -> None:
        folder = touch(tmp_path, "p1/dwi p1/label p2/dwi p2/label")
        with pytest.raises(ValueError, match=r"2 images without a label \(p1/dwi\.nii\.gz, p2/dwi\.nii\.gz\)"):
            match_files(folder, folder)

    def test_labels_in_a_folder_below_the_images(self, tmp_path: Path) -> None:
        touch(tmp_path, "a b labels/a labels/b")
        cases, _ = match_files(tmp_path, tmp_path / "labels")
        assert [(case.images[0].parent, case.label and case.label.parent.name) for case in cases] == [
            (tmp_path, "labels")
        ] * 2

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            ("a b c", "a b", r"1 images without a label \(c\.nii\.gz\)"),
            ("a b", "a b d", r"1 labels without an image \(d\.nii\.gz\)"),
            ("a b x", "a b y", r"\(x\.nii\.gz\); 1 labels without an image \(y\.nii\.gz\)"),
            ("a a.nii b", "a b", r"several images for one label \(a\.nii, a\.nii\.gz\)"),
            ("a b", "a_seg a_mask b_seg", r"several labels for one image \(a_mask\.nii\.gz, a_seg\.nii\.gz\)"),
            ("a_0000 a_0001 b_0000", "a b", r"Case 'b' has the files b_0000\.nii\.gz; .*each of 0000, 0001"),
            ("a_t1 a_t2", "a", r"do not match by name: several images for one label \(a_t1\.nii\.gz, .*`channels`"),
        ],
    )
    def test_files_without_a_partner_are_named(self, tmp_path: Path, images: str, labels: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            matched(tmp_path, images, labels)

    def test_long_lists_of_names_are_cut(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"8 images without a label \(a\.nii\.gz, .*e\.nii\.gz and 3 more\)"):
            matched(tmp_path, "a b c d e f g h", "x")

    def test_absent_or_empty_folders_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no folder '.*nowhere' of images"):
            match_files(tmp_path / "nowhere", tmp_path)
        touch(tmp_path / "dicom", "1.dcm")
        with pytest.raises(FileNotFoundError, match=r"holds no image .* found \.dcm\. Convert"):
            match_files(tmp_path / "dicom", tmp_path)
        touch(tmp_path / "same", "a b")
        with pytest.raises(FileNotFoundError, match=r"none are labels; in one folder for both"):
            match_files(tmp_path / "same", tmp_path / "same")


def test_images_alone_are_cases_without_label(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000 a_0001 b_0001 b_0000")
    cases = match_images(tmp_path, split_channels=True)
    assert [(case.name, len(case.images), case.label) for case in cases] == [("a", 2, None), ("b", 2, None)]
    assert len(match_images(tmp_path)) == 4


def make(folder: Path, *names: str) -> None:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"")


class TestPairsOfOneScan:
    def test_an_image_of_one_kind_has_no_label_of_another(self, tmp_path: Path) -> None:
        make(tmp_path / "images", "P1_T1.nii.gz", "P2_T1.nii.gz")
        make(tmp_path / "labels", "P1_T2_seg.nii.gz", "P2_T2_seg.nii.gz")
        with pytest.raises(ValueError, match=r"an image and a label of different scans \(P1_T1.nii.gz, P1_T2_seg"):
            match_files(tmp_path / "images", tmp_path / "labels")

    def test_two_kinds_of_a_patient_are_two_cases(self, tmp_path: Path) -> None:
        make(tmp_path / "images", "P1_T1.nii.gz", "P1_T2.nii.gz")
        make(tmp_path / "labels", "P1_T1_seg.nii.gz", "P1_T2_seg.nii.gz")
        cases, _ = match_files(tmp_path / "images", tmp_path / "labels")
        assert [(case.images[0].name, case.label.name) for case in cases if case.label] == [
            ("P1_T1.nii.gz", "P1_T1_seg.nii.gz"),
            ("P1_T2.nii.gz", "P1_T2_seg.nii.gz"),
        ]

    def test_a_word_on_one_side_alone_is_dropped(self, tmp_path: Path) -> None:
        make(tmp_path / "images", "P1_CT.nii.gz", "P2_CT.nii.gz")
        make(tmp_path / "labels", "P1_seg.nii.gz", "P2_CT_seg.nii.gz")
        cases, _ = match_files(tmp_path / "images", tmp_path / "labels")
        assert [case.label.name for case in cases if case.label] == ["P1_seg.nii.gz", "P2_CT_seg.nii.gz"]

    def test_two_files_that_would_be_one_case_are_named(self, tmp_path: Path) -> None:
        make(tmp_path / "images", "p 1.nii.gz", "p_1.nii.gz")
        make(tmp_path / "labels", "p 1.nii.gz", "p_1.nii.gz")
        with pytest.raises(ValueError, match=r"p 1.nii.gz, p_1.nii.gz would both be the case 'p_1'"):
            match_files(tmp_path / "images", tmp_path / "labels")
