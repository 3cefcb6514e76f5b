from __future__ import annotations

from typing import Any

import pytest

from scripts.data.label_names import check_label_names, names_in_files

KIDNEYS = ["liver", "right kidney", "left kidney"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({"0": "background", "1": "Anterior", "2": "Posterior"}, ["anterior hippocampus", "posterior hippocampus"]),
        ({"0": "background", "1": "liver", "2": "kidney_right", "3": "Left-Kidney"}, KIDNEYS),
        ({"background": 0, "liver": 1, "right kidney": 2, "left kidney": 3}, KIDNEYS),
        ({"1": "liver", "2": "kidney", "3": "left kidney"}, KIDNEYS),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3]}, KIDNEYS),
        ({"1": "hepar", "2": "right kidney", "3": "left kidney"}, KIDNEYS),
        ({"0": "background"}, KIDNEYS),
        ({}, KIDNEYS),
        (None, KIDNEYS),
        (["liver"], KIDNEYS),
    ],
)
def test_names_that_agree_and_none_at_all_pass(labels: Any, classes: list[str]) -> None:
    check_label_names(labels, classes, "dataset.json")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"1": "liver", "2": "left kidney", "3": "right kidney"},
            r"'d\.json' calls label 2 'left kidney'; in the concept table that is class 3, 'left kidney', and class 2 "
            r"is 'right kidney'\. Correct",
        ),
        ({"liver": 1, "left kidney": 2, "right kidney": 3}, "calls label 2 'left kidney'"),
        ({"1": "kidney", "2": "liver", "3": "left kidney"}, "calls label [12] '(kidney|liver)'"),
        ({"1": "liver", "2": "kidney of the left", "3": "x"}, "calls label 2 'kidney of the left'; .* class 3"),
        ({"0": "background", "1": "liver"}, "names the labels 1 liver; the concept table has 3 classes, labels 1 to 3"),
        ({"1": "liver", "2": "right kidney", "4": "left kidney"}, "names the labels .*4 left kidney"),
        (
            {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 3},
            "calls label 3 both 'left kidney' and 'spleen'",
        ),
        ({"1": "liver", "2": "right kidney", "3": "left kidney", "03": "aorta"}, "calls label 3 both"),
        ({"1": "liver", "2": "right kidney", "3": " "}, "no name for label 3"),
        ({"1": "liver", "2": "liver ", "3": "left kidney"}, "calls label 2 'liver'"),
        ({"1": "liver", "2": "LIVER", "3": "left kidney"}, "calls label 2 'LIVER'; .* class 1"),
        ({"1": "liver", "2.5": "right kidney", "3": "left kidney"}, "has the label value '2.5' for 'right kidney'"),
        ({"1": "liver", "-2": "right kidney", "3": "left kidney"}, "label value '-2'"),
        ({"1": "liver", "two": "right kidney"}, "label value 'two' for 'right kidney'"),
        ({"0": "liver", "1": "right kidney", "2": "left kidney"}, "calls label 0 'liver', which is a class"),
        ({"1": "background", "2": "right kidney", "3": "left kidney"}, "names the labels 1 background, 2 right"),
        (["background", "liver", "left kidney", "right kidney"], "calls label 2 'left kidney'"),
        ({"1": None, "2": "right kidney", "3": "left kidney"}, "calls label 1 None; expected a name"),
        ({"1": {"name": "liver"}, "2": "right kidney"}, "calls label 1 {'name': 'liver'}; expected a name"),
        ({"liver": 1.5, "right kidney": 2, "left kidney": 3}, "label value '1.5' for 'liver'"),
        ({"1": "background"}, "names the labels 1 background"),
        ({"1": "aorta", "2": "spleen", "3": "heart"}, "none of the classes of the concept table is called so"),
    ],
)
def test_names_of_other_classes_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_label_names(labels, KIDNEYS, "d.json")


def test_a_name_that_no_class_shares_a_word_with_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    check_label_names({"1": "hepar", "2": "right kidney", "3": "left kidney"}, KIDNEYS, "d.json")
    assert caplog.messages == ["d.json: label 1 is 'hepar', class 1 'liver'."]


@pytest.mark.parametrize("labels", [["liver", "right kidney", "left kidney"], "liver"])
def test_what_tells_no_values_is_said(labels: Any, caplog: pytest.LogCaptureFixture) -> None:
    check_label_names(labels, KIDNEYS, "d.json")
    assert caplog.messages == ["d.json: 'labels' are not compared with the classes; expected names by values."]


def test_numbers_that_transforms_make_are_not_those_of_the_files() -> None:
    assert names_in_files(KIDNEYS) == KIDNEYS
    assert names_in_files(KIDNEYS, softmax=False) is None
    assert names_in_files(KIDNEYS, label_transforms=[object()]) is None
