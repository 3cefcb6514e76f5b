"""The words that the bundle carries."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from scripts.data.phantom.anatomy import CLASS_NAMES
from scripts.words.sentences import exchange_sides
from scripts.words.table import ConceptTable

ROOT = Path(__file__).resolve().parents[2]
CONCEPTS = ROOT / "bipvl_bundle" / "configs" / "concepts"
DATA = ROOT.parent / "shared" / "data"
AMBIGUOUS = sorted(CONCEPTS.glob("*_ambiguous.yaml"))
TABLES = sorted(set(CONCEPTS.glob("*.yaml")) - set(AMBIGUOUS))
SIX = ("title", "shape", "location", "appearance", "contour", "texture")
SIDED = ("title", "location")
CHAMBERS = ("left ventricle", "left ventricular myocardium", "right ventricle", "left atrium", "right atrium")
HEART = (*CHAMBERS, "ascending aorta", "pulmonary artery")
# The two sides of a heart are no mirror images; what looks alike there is listed by class.
ALIKE = {
    "mmwhs_ct": {
        "appearance": [("left ventricle", "left atrium", "ascending aorta"), ("right ventricle", "pulmonary artery")]
    },
    "mmwhs_mr": {
        "appearance": [
            ("left ventricle", "right ventricle", "left atrium", "right atrium"),
            ("ascending aorta", "pulmonary artery"),
        ]
    },
}
HEDGES = re.compile(
    r"\b(some|somewhat|sometimes|may|might|maybe|could|can|perhaps|possibly|possible|probably|likely|roughly|mostly|"
    r"usually|often|generally|general|tends?|seems?|vary|varies|depending|depends|give or take|more or less|as a rule|"
    r"at times|in many|in most)\b",
    re.IGNORECASE,
)
NOT_VISUAL = re.compile(
    r"\b(pumps?|function\w*|produc\w+|filters?|stores?|secret\w+|oxygen\w*|digest\w*|disease\w*|diagnos\w+|patholog\w+|"
    r"malignan\w+|benign|cancer\w*|carcinoma|glioma|glioblastoma|edema|oedema|necro\w+|healthy|normal|abnormal)\b",
    re.IGNORECASE,
)

every_table = pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
every_ambiguous_table = pytest.mark.parametrize("path", AMBIGUOUS, ids=lambda path: path.stem)
every_file = pytest.mark.parametrize("path", [*TABLES, *AMBIGUOUS], ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(ROOT / "bipvl_bundle" / "models" / "text_encoder")


def swap_sides(text: str) -> str:
    return re.sub(r"left|right", lambda side: "right" if side[0] == "left" else "left", text.lower())


def pairs(table: ConceptTable) -> list[tuple[int, int]]:
    lefts = [i for i, name in enumerate(table.classes) if name.startswith("left ")]
    return [(i, table.classes.index(other)) for i in lefts if (other := swap_sides(table.classes[i])) in table.classes]


def alternatives(table: ConceptTable) -> list[tuple[str, tuple[tuple[str, ...], ...]]]:
    """Each class's name with its K lists of other sentences."""
    return [(name, table.alternatives_of(label)) for label, name in enumerate(table.classes)]


def test_the_tables_that_the_project_needs_are_there() -> None:
    needed = {"phantom", "hippocampus", "brain_structures", "amos22", "mmwhs_ct", "mmwhs_mr", "msd_brain"}
    assert {path.stem for path in TABLES} >= needed


def test_every_data_set_has_its_ambiguous_variant() -> None:
    assert {path.stem for path in AMBIGUOUS} == {f"{path.stem}_ambiguous" for path in TABLES}


@every_table
def test_a_table_has_the_six_concepts_of_the_paper(path: Path) -> None:
    assert ConceptTable.load(path).concepts == SIX


@every_table
def test_every_sentence_is_about_ten_to_twenty_five_words(path: Path) -> None:
    table = ConceptTable.load(path)
    assert {s for row in table.sentences for s in row[1:] if not 6 <= len(s.split()) <= 25} == set()


@every_table
def test_a_title_names_its_class_and_modality(path: Path) -> None:
    table = ConceptTable.load(path)
    for name, (title, *_) in zip(table.classes, table.sentences, strict=True):
        assert set(re.split(r"\W+", name)) <= set(re.split(r"\W+", title.lower()))
        assert table.modality in title.split()


@every_file
def test_the_embedded_encoder_reads_every_format(path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    table = ConceptTable.load(path)
    for name, limit in (("fixed", 64), ("name", 64), ("aggregated", tokenizer.model_max_length)):
        ids = tokenizer(list(table.as_format(name).sentences_flat))["input_ids"]
        assert max(map(len, ids)) <= limit
        assert not any(tokenizer.unk_token_id in sentence for sentence in ids)


@every_table
def test_no_two_classes_share_title_or_location(path: Path) -> None:
    table = ConceptTable.load(path)
    for concept in SIDED:
        column = table.concepts.index(concept)
        assert len({row[column].lower() for row in table.sentences}) == len(table.classes)


@every_file
def test_no_sentence_tells_function_or_diagnosis(path: Path) -> None:
    table = ConceptTable.load(path)
    assert {s for s in table.sentences_flat if NOT_VISUAL.search(s)} == set()


@every_file
def test_no_table_claims_to_be_reviewed(path: Path) -> None:
    """Turn this around for a table once a reader with radiological training has read it."""
    assert not ConceptTable.load(path).reviewed


@every_table
def test_every_title_and_location_can_be_said_in_two_other_ways(path: Path) -> None:
    table = ConceptTable.load(path)
    for concept in SIDED:
        column = table.concepts.index(concept)
        assert {name: len(row[column]) for name, row in alternatives(table) if len(row[column]) < 2} == {}


@every_table
def test_an_alternative_is_a_sentence_like_the_others(path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    said = [s for _, row in alternatives(ConceptTable.load(path)) for others in row for s in others]
    assert {s for s in said if not re.fullmatch(r"[A-Z].*[^.]\.", s) or not 5 <= len(s.split()) <= 25} == set()
    assert {s for s in said if NOT_VISUAL.search(s)} == set()
    assert {s: len(ids) for s, ids in zip(said, tokenizer(said)["input_ids"], strict=True) if len(ids) > 40} == {}


@every_table
def test_alternatives_are_shared_by_the_classes_that_share_the_sentence_and_by_no_others(path: Path) -> None:
    table = ConceptTable.load(path)
    originals = {s.casefold() for s in table.sentences_flat}
    stands_for: dict[str, str] = {}
    shared: dict[str, tuple[str, ...]] = {}
    for (_, row), sentences in zip(alternatives(table), table.sentences, strict=True):
        for others, sentence in zip(row, sentences, strict=True):
            assert len({s.casefold() for s in others}) == len(others)
            assert shared.setdefault(sentence, others) == others
            for other in map(str.casefold, others):
                assert other not in originals
                assert stands_for.setdefault(other, sentence) == sentence


@every_table
def test_the_alternatives_of_a_title_name_the_modality_and_the_side(path: Path) -> None:
    table = ConceptTable.load(path)
    for name, row in alternatives(table):
        sides = re.findall(r"\b(left|right)\b", name)
        for title in row[table.concepts.index("title")]:
            assert table.modality in title.split()
            assert sorted(re.findall(r"\b(left|right)\b", title)) == sides, title


@every_table
def test_the_alternatives_of_a_pair_are_mirror_images(path: Path) -> None:
    table = ConceptTable.load(path)
    mirrored = ("title",) if path.stem in ALIKE else table.concepts  # the two sides of a heart differ in the rest
    for i, j in pairs(table):
        for concept in mirrored:
            column = table.concepts.index(concept)
            left, right = (table.alternatives_of(row)[column] for row in (i, j))
            assert tuple(map(exchange_sides, left)) == right
            assert concept not in SIDED or not set(left) & set(right)


@pytest.mark.parametrize("path", [p for p in TABLES if p.stem not in ALIKE], ids=lambda path: path.stem)
def test_left_and_right_share_all_words_but_title_and_location(path: Path) -> None:
    table = ConceptTable.load(path)
    same = table.same_sentence()
    twins = pairs(table)
    for i, j in twins:
        assert same[i, j].tolist() == [concept not in SIDED for concept in table.concepts]
        assert swap_sides(table.sentences[i][0]) == table.sentences[j][0].lower()
    alike = same.any(axis=2)
    alike[range(len(alike)), range(len(alike))] = False
    assert alike.sum() == 2 * len(twins)


@pytest.mark.parametrize("stem", ALIKE)
def test_what_looks_alike_in_a_heart_has_one_sentence(stem: str) -> None:
    table = ConceptTable.load(CONCEPTS / f"{stem}.yaml")
    assert table.classes == HEART
    for column, concept in enumerate(table.concepts):
        named: dict[str, list[str]] = {}
        for name, row in zip(table.classes, table.sentences, strict=True):
            named.setdefault(row[column], []).append(name)
        shared = [tuple(names) for names in named.values() if len(names) > 1]
        assert shared == ALIKE[stem].get(concept, [])


def test_the_tumor_regions_overlap_in_words_as_they_do_in_the_labels() -> None:
    table = ConceptTable.load(CONCEPTS / "msd_brain.yaml")
    assert table.classes == ("tumor core", "whole tumor", "enhancing tumor")
    places = [row[2].lower() for row in table.sentences]
    assert "the whole tumor" in places[0]
    assert "the enhancing tumor" in places[0]
    assert "around the core" in places[1]
    assert "within the tumor core" in places[2]


@every_ambiguous_table
def test_an_ambiguous_table_describes_the_same_classes_with_fewer_and_other_sentences(path: Path) -> None:
    table = ConceptTable.load(path)
    fixed = ConceptTable.load(path.with_name(path.name.replace("_ambiguous", "")))
    assert (table.modality, table.classes) == (fixed.modality, fixed.classes)
    assert table.concepts == ("first", "second", "third", "fourth")
    assert not set(table.sentences_flat) & set(fixed.sentences_flat)
    assert {s for s in table.sentences_flat if not 6 <= len(s.split()) <= 25} == set()


@every_ambiguous_table
def test_an_ambiguous_sentence_hedges(path: Path) -> None:
    assert {s for s in ConceptTable.load(path).sentences_flat if not HEDGES.search(s)} == set()


@every_ambiguous_table
def test_no_two_classes_are_wholly_the_same_to_an_ambiguous_reader(path: Path) -> None:
    table = ConceptTable.load(path)
    assert len(set(table.sentences)) == len(table.classes)


def test_paired_brain_structures_lie_in_mirrored_places() -> None:
    table = ConceptTable.load(CONCEPTS / "brain_structures.yaml")
    assert len(pairs(table)) == 7
    for i, j in pairs(table):
        assert swap_sides(table.sentences[i][2]) == table.sentences[j][2].lower()


def test_the_phantom_and_its_words_agree_on_the_classes() -> None:
    assert ConceptTable.load(CONCEPTS / "phantom.yaml").classes == CLASS_NAMES


@pytest.mark.parametrize(
    ("stem", "folder"), [("hippocampus", "Task04_Hippocampus"), ("brain_structures", "brain_structures")]
)
def test_words_stand_in_the_order_of_the_labels_of_the_real_data(stem: str, folder: str) -> None:
    source = DATA / folder / "dataset.json"
    if not source.is_file():
        pytest.skip(f"no real data at {source}")
    labels = json.loads(source.read_text(encoding="utf-8"))["labels"]
    table = ConceptTable.load(CONCEPTS / f"{stem}.yaml")
    assert len(labels) == len(table.classes) + 1
    for value, name in enumerate(table.classes, start=1):
        assert labels[str(value)].lower() in name
