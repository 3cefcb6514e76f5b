"""The words that the bundle carries."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from scripts.concepts import ConceptTable
from scripts.data.phantom_anatomy import CLASS_NAMES

ROOT = Path(__file__).resolve().parents[1]
CONCEPTS = ROOT / "bipvl_bundle" / "configs" / "concepts"
DATA = ROOT.parent / "shared" / "data"
TABLES = sorted(CONCEPTS.glob("*.yaml"))
SIX = ("title", "shape", "location", "appearance", "contour", "texture")
SIDED = ("title", "location")

every_table = pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(ROOT / "bipvl_bundle" / "models" / "text_encoder")


def swap_sides(text: str) -> str:
    return re.sub(r"left|right", lambda side: "right" if side[0] == "left" else "left", text.lower())


def pairs(table: ConceptTable) -> list[tuple[int, int]]:
    lefts = [i for i, name in enumerate(table.classes) if name.startswith("left ")]
    return [(i, table.classes.index(swap_sides(table.classes[i]))) for i in lefts]


def test_the_tables_that_the_project_needs_are_there() -> None:
    assert {path.stem for path in TABLES} >= {"phantom", "hippocampus", "brain_structures", "amos22"}


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


@every_table
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


@every_table
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
