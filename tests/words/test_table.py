from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts.words.loading import load_concepts
from scripts.words.table import ConceptTable

TABLE = """
modality: MR
reviewed: true
concepts: [title, shape]
classes:
  - name: left ball
    title: Left ball.
    shape: Round
  - name: right ball
    title: Right ball.
    shape: |
      round
  - name: cube
    title: A T1-weighted cube.
    shape: C-shaped edges.
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "shapes.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path) -> ConceptTable:
    return ConceptTable.load(write(tmp_path, TABLE))


def test_a_table_is_read_in_the_order_of_its_file(table: ConceptTable) -> None:
    assert table.modality == "MR"
    assert table.reviewed
    assert table.source == "shapes.yaml"
    assert table.concepts == ("title", "shape")
    assert table.classes == ("left ball", "right ball", "cube")
    assert table.sentences[1] == ("Right ball.", "round")


def test_sentence_k_of_class_i_stands_at_i_times_k_plus_k(table: ConceptTable) -> None:
    flat = table.sentences_flat
    assert len(flat) == 6
    assert all(flat[i * 2 + k] == table.sentences[i][k] for i in range(3) for k in range(2))


def test_the_order_of_the_keys_of_a_class_does_not_matter(tmp_path: Path, table: ConceptTable) -> None:
    swapped = TABLE.replace("    title: Left ball.\n    shape: Round\n", "    shape: Round\n    title: Left ball.\n")
    assert swapped != TABLE
    assert ConceptTable.load(write(tmp_path, swapped)) == table


def test_a_table_without_a_word_on_review_is_not_reviewed(tmp_path: Path) -> None:
    assert not ConceptTable.load(write(tmp_path, TABLE.replace("reviewed: true\n", ""))).reviewed


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No concept table at '.*nowhere\.yaml'"):
        ConceptTable.load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (TABLE, "- a\n- b\n", r"shapes\.yaml' holds a list; expected a mapping with the keys modality"),
        (TABLE, "", r"shapes\.yaml' holds nothing; expected a mapping"),
        (TABLE, "a: [", r"shapes\.yaml' is no valid YAML"),
        ("modality: MR", "modalty: MR", r"unknown key 'modalty'; did you mean 'modality'\?"),
        ("modality: MR\n", "", r"shapes\.yaml lacks 'modality'"),
        ("modality: MR", "modality: ''", r"shapes\.yaml: modality is empty"),
        ("reviewed: true", "reviewed: perhaps", r"'reviewed' must be true or false, found 'perhaps'"),
        ("[title, shape]", "title", r"'concepts' must be a list, found str"),
        ("[title, shape]", "[]", r"shapes\.yaml names no concept"),
        ("[title, shape]", "[title, Title]", r"duplicate concept 'Title' \(also 'title'\)"),
        ("[title, shape]", "[name, shape]", r"'name' is a key of the class itself"),
        (
            "    title: Left ball.\n    shape: Round\n",
            "",
            r"class 'left ball' has no concepts, expected title, shape",
        ),
        ("    shape: Round\n", "", r"class 'left ball' lacks 'shape'"),
        ("    shape: Round\n", "    shap: Round\n", r"class 'left ball' .*'shap'; did you mean 'shape'\?"),
        (
            "    shape: Round\n",
            "    shape: Round\n    zzz: x\n",
            r"unknown key 'zzz'; known: name, title, shape",
        ),
        ("    shape: Round\n", "    shape: Round\n    shape: Flat\n", r"key 'shape' given twice"),
        ("name: right ball", "name: \uff4ceft ball", "duplicate class '\uff4ceft ball' .also 'left ball'."),
        ("name: right ball", "name: Mean", r"called 'Mean', which stands for the mean"),
        ("name: right ball", "name: ' BACKGROUND '", r"called 'BACKGROUND', which stands for what belongs to no class"),
        ("name: right ball", "name: Left  Ball", r"duplicate class 'Left Ball' \(also 'left ball'\)"),
        ("name: right ball", "nam: right ball", r"class number 2 needs a text 'name'"),
        ("name: right ball", "name: 7", r"class number 2 needs a text 'name'"),
        ("name: right ball", "name: ' '", r"class name is empty"),
        ("shape: Round", "shape: '  '", r"class 'left ball', concept 'shape' is empty"),
        ("shape: Round", "shape:", r"class 'left ball', concept 'shape' is empty"),
        ("shape: Round", "shape: 3", r"class 'left ball', concept 'shape' must be text, found 3"),
        ("shape: Round", "shape: {dark: round}", r"class 'left ball', concept 'shape' must be text"),
        ("shape: Round", "shape: $print(1)", r"class 'left ball', concept 'shape' begins with '\$'"),
        ("shape: Round", "shape: '%/etc/passwd'", r"class 'left ball', concept 'shape' begins with '%'"),
        ("shape: Round", r'shape: "Ro\u200bund"', r"concept 'shape' has the invisible character U\+200B"),
        ("shape: Round", r'shape: "Ro\x07und"', r"concept 'shape' has the invisible character U\+0007"),
        ("name: cube", "name: '@cube'", r"class name begins with '@'"),
        ("name: cube", r'name: "cu\u00adbe"', r"class name has the invisible character U\+00AD \(SOFT HYPHEN\)"),
        ("name: cube", "name: Mean", r"a class is called 'Mean', which stands for the mean over the classes in tables"),
        (
            "name: cube",
            "name: background",
            r"a class is called 'background', which stands for what belongs to no class",
        ),
        ("modality: MR", "modality: '$MR'", r"modality begins with '\$'"),
        ("[title, shape]", "[title, $shape]", r"concept name begins with '\$'"),
    ],
)
def test_a_faulty_file_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert TABLE.count(old) == 1
    with pytest.raises(ValueError, match=message) as caught:
        ConceptTable.load(write(tmp_path, TABLE.replace(old, new)))
    assert "shapes.yaml" in str(caught.value)


def test_a_table_built_in_code_is_checked_too() -> None:
    with pytest.raises(ValueError, match=r"2 classes but 1 rows"):
        ConceptTable("CT", ("title",), ("a", "b"), (("A.",),))
    with pytest.raises(ValueError, match=r"class 'a' has 1 sentences, expected 2: title, shape"):
        ConceptTable("CT", ("title", "shape"), ("a",), (("A.",),))


def test_same_sentence_ignores_case_and_whitespace_and_holds_on_the_diagonal(table: ConceptTable) -> None:
    same = table.same_sentence()
    expected = np.zeros((3, 3, 2), dtype=bool)
    for i in range(3):
        expected[i, i] = True
    expected[0, 1, 1] = expected[1, 0, 1] = True  # "Round" and "round"
    assert same.dtype == np.bool_
    np.testing.assert_array_equal(same, expected)


def test_formats_of_table_2(table: ConceptTable) -> None:
    assert table.as_format("fixed") == table
    aggregated = table.as_format("aggregated")
    assert aggregated.concepts == ("aggregated",)
    assert aggregated.sentences == (
        ("Left ball: round.",),
        ("Right ball: round.",),
        ("A T1-weighted cube: C-shaped edges.",),
    )
    name = table.as_format("name")
    assert name.concepts == ("name",)
    assert name.sentences[0] == ("Left ball in an MR image.",)
    assert name.classes == aggregated.classes == table.classes
    with pytest.raises(ValueError, match=r"'title', expected one of fixed, aggregated, name"):
        table.as_format("title")


@pytest.mark.parametrize(
    ("modality", "expected"),
    [
        ("CT", "a CT"),
        ("MR", "an MR"),
        ("PET", "a PET"),
        ("ultrasound", "an ultrasound"),
        ("mammography", "a mammo"),
    ],
)
def test_the_article_fits_the_modality(modality: str, expected: str) -> None:
    table = ConceptTable(modality, ("title",), ("cyst",), (("x",),))
    assert f"Cyst in {expected}" in table.as_format("name").sentences[0][0]


def test_one_concept_can_be_left_out(table: ConceptTable) -> None:
    shorter = table.without("title")
    assert shorter.concepts == ("shape",)
    assert shorter.sentences == (("Round",), ("round",), ("C-shaped edges.",))
    with pytest.raises(ValueError, match=r"has no concept 'shap'; did you mean 'shape'\?"):
        table.without("shap")
    with pytest.raises(ValueError, match=r"'shape' is the only concept"):
        shorter.without("shape")


def test_the_digest_sees_words_and_classes_and_nothing_else(tmp_path: Path, table: ConceptTable) -> None:
    def digest(old: str, new: str) -> str:
        return ConceptTable.load(write(tmp_path, TABLE.replace(old, new))).digest

    assert len(table.digest) == 64
    assert digest("reviewed: true", "reviewed: false") == table.digest
    assert digest("modality: MR", "modality: CT") == table.digest
    assert digest("Left ball.", "Left   ball.") == table.digest
    assert digest("Left ball.", "Left egg.") != table.digest
    assert digest("name: cube", "name: box") != table.digest
    assert digest("[title, shape]", "[shape, title]") != table.digest


def test_sentences_are_replaced_in_a_new_table(table: ConceptTable) -> None:
    edited = table.replace_sentences({"CUBE": {"shape": " Flat   sides. "}})
    assert edited.sentences[2] == ("A T1-weighted cube.", "Flat sides.")
    assert edited.sentences[:2] == table.sentences[:2]
    assert table.sentences[2][1] == "C-shaped edges."
    assert table.reviewed
    assert not edited.reviewed
    assert table.replace_sentences({"cube": {"shape": "C-shaped edges."}}).reviewed


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"cubes": {"shape": "x"}}, r"no class 'cubes'; did you mean 'cube'\?"),
        ({"cube": {"colour": "x"}}, r"no concept 'colour'; known: title, shape"),
        ({"cube": {"shape": " "}}, r"class 'cube', concept 'shape' is empty"),
        ({"cube": {"shape": 3}}, r"class 'cube', concept 'shape' must be text, found 3"),
        ({"cube": {"shape": "$x"}}, r"class 'cube', concept 'shape' begins with '\$'"),
        ({"cube": {"shape": "a\u200bb"}}, r"class 'cube', concept 'shape' has the invisible character"),
        ({"cube": "x"}, r"class 'cube': expected \{concept: sentence\}, found 'x'"),
    ],
)
def test_a_faulty_edit_is_refused(table: ConceptTable, edits: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table.replace_sentences(edits)


def test_swapped_classes_have_each_other_s_sentences_and_nothing_else_changes(table: ConceptTable) -> None:
    swapped = table.swapped("CUBE", "left ball")
    assert swapped.classes == table.classes
    assert swapped.sentences == (table.sentences[2], table.sentences[1], table.sentences[0])
    assert swapped.swapped("left ball", "cube") == table
    with pytest.raises(ValueError, match=r"no class 'cubes'; did you mean 'cube'\?"):
        table.swapped("cubes", "left ball")
    with pytest.raises(ValueError, match=r"'cube' cannot be swapped with itself"):
        table.swapped("cube", "Cube")


def test_a_table_is_loaded_as_it_stands_unless_told_otherwise(
    tmp_path: Path, table: ConceptTable, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, TABLE)
    assert load_concepts(path) == table
    assert load_concepts(path, "aggregated") == table.as_format("aggregated")
    assert load_concepts(path, leave_out="title") == table.without("title")
    assert load_concepts(path, "aggregated", leave_out="title").sentences[2] == ("C-shaped edges.",)
    assert not caplog.records


def test_wrong_words_are_put_to_a_class_after_the_format_is_made_and_are_logged(
    tmp_path: Path, table: ConceptTable, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, TABLE)
    named = load_concepts(path, "name", swap=["left ball", "cube"])
    assert named.sentences[0] == ("Cube in an MR image.",)
    assert "The words of 'left ball' and 'cube' in shapes.yaml are exchanged" in caplog.text
    both = load_concepts(path, shuffle_seed=3, swap=["left ball", "cube"])
    assert both == table.shuffled(3).swapped("left ball", "cube")
    assert "The words of shapes.yaml are shuffled at random (`shuffle_seed` 3)" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leave_out": "shap"}, r"shapes\.yaml has no concept 'shap'; did you mean 'shape'\?"),
        ({"leave_out": "shape", "text_format": "name"}, r"`leave_out` \('shape'\) changes nothing .* 'name'"),
        ({"swap": ["left bal", "cube"]}, r"shapes\.yaml has no class 'left bal'; did you mean 'left ball'\?"),
        ({"swap": ["cube"]}, r"`swap` must name two classes, .* found \['cube'\]"),
        ({"swap": "left ball,cube"}, r"`swap` must name two classes, .* found 'left ball,cube'"),
        ({"shuffle_seed": "a"}, r"`shuffle_seed` must be a whole number or null, found 'a'"),
        ({"shuffle_seed": True}, r"`shuffle_seed` must be a whole number or null, found True"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_concepts(write(tmp_path, TABLE), **options)


class TestAlternatives:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "organs.yaml"
        path.write_text(
            """
            modality: CT
            concepts: [title, shape]
            classes:
              - {name: liver, title: Liver., shape: A wedge., alternatives: {shape: ["Wedge-like.", "Like a  wedge."]}}
              - {name: aorta, title: Aorta., shape: A tube.}
            """
        )
        return path

    def test_are_read_by_class_and_concept(self, path: Path) -> None:
        table = ConceptTable.load(path)
        assert table.alternatives == (((), ("Wedge-like.", "Like a wedge.")), ((), ()))
        assert table.alternatives_of(0)[1] == ("Wedge-like.", "Like a wedge.")

    def test_follow_their_class_and_concept(self, path: Path) -> None:
        table = ConceptTable.load(path)
        assert table.only(["aorta", "liver"]).alternatives == table.alternatives[::-1]
        assert table.swapped("aorta", "liver").alternatives == table.alternatives[::-1]
        assert table.without("title").alternatives == ((("Wedge-like.", "Like a wedge."),), ((),))

    def test_end_where_the_sentences_are_others(self, path: Path) -> None:
        table = ConceptTable.load(path)
        others = (table.as_format("name"), table.shuffled(1), table.replace_sentences({"liver": {"shape": "Flat."}}))
        assert [other.alternatives for other in others] == [(), (), ()]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[a]", r"class 'liver': 'alternatives' must be \{concept: \[sentence, ...\]\}, found"),
            ("{form: [a]}", "class 'liver', alternatives has an unknown key 'form'"),
            ("{shape: a}", "class 'liver': the alternatives of 'shape' must be a list, found str"),
            ("{shape: ['']}", "class 'liver': an alternative of 'shape' is empty"),
        ],
    )
    def test_bad_ones_raise_by_name(self, path: Path, content: str, message: str) -> None:
        path.write_text(path.read_text().replace('{shape: ["Wedge-like.", "Like a  wedge."]}', content))
        with pytest.raises(ValueError, match=message):
            ConceptTable.load(path)


class TestOnly:
    def test_keeps_what_belongs_to_the_classes_in_the_order_asked_for(self, table: ConceptTable) -> None:
        some = table.only(["CUBE", "left ball"])
        assert some.classes == ("cube", "left ball")
        assert some.sentences == (table.sentences[2], table.sentences[0])

    def test_unknown_class_raises(self, table: ConceptTable) -> None:
        with pytest.raises(ValueError, match="has no class 'cub'; did you mean 'cube'"):
            table.only(["cub"])
