from __future__ import annotations

from dataclasses import replace

import pytest

from scripts.words.lines import read_edits, read_fields, words_text
from scripts.words.table import ConceptTable


@pytest.fixture
def single(table: ConceptTable) -> ConceptTable:
    return table.as_format("name")


class TestText:
    def test_names_every_concept(self, table: ConceptTable) -> None:
        assert words_text(table, "left kidney") == "shape: A bean.; location: On the left."

    def test_one_concept_is_a_sentence_alone(self, single: ConceptTable) -> None:
        assert words_text(single, "liver") == "Liver in a CT image."


class TestReading:
    @pytest.mark.parametrize("text_format", ["fixed", "aggregated", "name"])
    def test_what_is_shown_is_no_edit(self, table: ConceptTable, text_format: str) -> None:
        table = table.as_format(text_format)
        shown = {label: words_text(table, label) for label in table.classes}
        assert read_edits(table, shown) == {}

    def test_only_what_differs_is_an_edit(self, table: ConceptTable) -> None:
        text = "shape: A  bean.; location: Below the\n liver."
        assert read_edits(table, {"Right Kidney": text}) == {"right kidney": {"location": "Below the liver."}}

    def test_order_and_case_of_concepts_do_not_matter(self, table: ConceptTable) -> None:
        text = "LOCATION : Here.;Shape:A disc."
        assert read_edits(table, {"liver": text}) == {"liver": {"shape": "A disc.", "location": "Here."}}

    def test_a_sentence_may_hold_semicolons_and_colons(self, table: ConceptTable) -> None:
        text = "shape: Flat; thin at the edge; as seen here: thick; location: Top: right.;"
        expected = {"shape": "Flat; thin at the edge; as seen here: thick", "location": "Top: right."}
        assert read_edits(table, {"liver": text}) == {"liver": expected}

    def test_shown_sentences_with_the_marks_of_the_format_are_no_edit(self, table: ConceptTable) -> None:
        rows = (("A: b; shape: c.", "Note: d; location: e."), *table.sentences[1:])
        table = replace(table, sentences=rows)
        assert read_edits(table, {"right kidney": words_text(table, "right kidney")}) == {}

    def test_one_concept_is_read_whole(self, single: ConceptTable) -> None:
        assert read_edits(single, {"liver": "Liver: a wedge; big."}) == {"liver": {"name": "Liver: a wedge; big."}}

    def test_a_mapping_may_leave_concepts_out(self, table: ConceptTable) -> None:
        assert read_edits(table, {"liver": {"shape": "A disc."}}) == {"liver": {"shape": "A disc."}}

    @pytest.mark.parametrize(
        ("label", "content", "message"),
        [
            ("livr", "shape: a; location: b", "no class 'livr'; did you mean 'liver'"),
            ("liver", "shape: a", "text for 'liver' lacks 'location'; give all of shape, location"),
            ("liver", "shap: a; location: b", "'liver' has an unknown concept 'shap'; did you mean 'shape'"),
            ("liver", "shape: a; place: b", "'liver' has an unknown concept 'place'; known: shape, location"),
            ("liver", "shape: a; location: b; Shape: c", "'liver' gives 'shape' twice"),
            ("liver", "shape: ; location: b", "'liver': 'shape' is empty"),
            ("liver", "  ", "'liver' is empty"),
            ("liver", "a wedge; shape: b", "'liver' begins with 'a wedge', expected 'shape: ...; location: ...'"),
            ("liver", {"colour": "a"}, "no concept 'colour'"),
            ("liver", {"shape": ""}, "class 'liver', concept 'shape' is empty"),
            ("liver", 7, r"class 'liver': expected \{concept: sentence\}, found 7"),
        ],
    )
    def test_what_cannot_be_read_is_reported_by_class_and_concept(
        self, table: ConceptTable, label: str, content: str, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            read_edits(table, {label: content})


class TestFields:
    def test_some_of_the_concepts_are_enough(self, table: ConceptTable) -> None:
        assert read_fields(table, "x", "Location: below; left.") == {"location": "below; left."}

    def test_a_sentence_alone_is_the_first_concepts(self, table: ConceptTable) -> None:
        assert read_fields(table, "x", "A disc; thin.") == {"shape": "A disc; thin."}

    @pytest.mark.parametrize(
        ("text", "message"),
        [(" ", "x is empty"), ("colour: red", "x has an unknown concept 'colour'"), ("shape: a; shape: b", "twice")],
    )
    def test_what_cannot_be_read(self, table: ConceptTable, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            read_fields(table, "x", text)


def test_words_that_are_no_mapping(table: ConceptTable) -> None:
    with pytest.raises(ValueError, match=r"Other words are \['liver'\]; expected"):
        read_edits(table, ["liver"])  # type: ignore[arg-type]
