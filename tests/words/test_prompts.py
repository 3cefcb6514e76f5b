from __future__ import annotations

import re

import pytest
import yaml

from scripts.words.prompts import FIELDS, concept_prompt, print_prompt, yaml_prompt

CLASSES = ("left kidney", "spleen")


def test_the_six_fields_are_those_of_every_table_of_the_bundle() -> None:
    assert tuple(FIELDS) == ("title", "shape", "location", "appearance", "contour", "texture")


def test_the_request_names_classes_modality_and_fields() -> None:
    text = concept_prompt(CLASSES, "CT")
    assert "looks in a CT image" in text
    assert "left kidney, spleen." in text
    assert re.findall(r"^- (\w+):", text, re.MULTILINE) == list(FIELDS)
    assert "as in: Left kidney in a CT image." in text
    assert "looks in an MR image" in concept_prompt(CLASSES, "MR")


def test_the_request_forbids_what_is_not_seen() -> None:
    text = " ".join(concept_prompt(CLASSES, "CT").split())
    assert "only what can be seen" in text
    assert "Nothing about what the structure does, nothing about diseases or their diagnosis" in text
    assert "Left and right are the patient's own" in text


def test_other_concepts_are_asked_for_by_name() -> None:
    text = concept_prompt(CLASSES, "CT", ["title", "colour"])
    assert "these 2 fields" in text
    assert "- colour: what is seen of its colour" in text
    assert "- shape:" not in text


def test_the_form_of_the_answer_is_that_of_a_table() -> None:
    text = yaml_prompt(CLASSES, "CT")
    form = yaml.safe_load(text[text.index("modality: CT") :])
    assert form["reviewed"] is False
    assert form["concepts"] == list(FIELDS)
    assert form["classes"] == [{"name": "left kidney", **dict.fromkeys(FIELDS, "...")}]


def test_one_text_is_split_at_its_commas(capsys: pytest.CaptureFixture[str]) -> None:
    print_prompt("left kidney,  spleen", "CT", "title,shape")
    assert capsys.readouterr().out == yaml_prompt(CLASSES, "CT", ["title", "shape"]) + "\n"


def test_braces_in_a_name_are_text() -> None:
    assert "{odd} thing" in yaml_prompt(["{odd} thing"], "CT", ["{x}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), "CT"), r"the request names no class"),
        ((("spleen", "Spleen"), "CT"), r"duplicate class 'Spleen' \(also 'spleen'\)"),
        (("spleen,,liver", "CT"), r"class name is empty"),
        (((1,), "CT"), r"class name must be text, found 1"),
        ((CLASSES, " "), r"modality is empty"),
        ((CLASSES, "CT", ()), r"the request names no concept"),
        ((CLASSES, "CT", ("name",)), r"'name' is a key of the class itself"),
    ],
)
def test_a_request_that_makes_no_table_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        concept_prompt(*arguments)
