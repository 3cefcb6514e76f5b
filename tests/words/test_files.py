from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.words import files as concept_files
from scripts.words.files import check_new_file, write_table
from scripts.words.table import ConceptTable

CONCEPTS = Path(__file__).resolve().parents[2] / "bipvl_bundle" / "configs" / "concepts"


def content(table: ConceptTable) -> tuple:
    return table.modality, table.concepts, table.classes, table.sentences, table.reviewed


def table_of(*sentences: str, name: str = "spleen") -> ConceptTable:
    return ConceptTable("CT", tuple(f"c{i}" for i in range(len(sentences))), (name,), (sentences,))


@pytest.mark.parametrize("path", sorted(CONCEPTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_table_of_the_bundle_survives_the_way_to_a_file_and_back(path: Path, tmp_path: Path) -> None:
    table = ConceptTable.load(path)
    write_table(table, tmp_path / path.name)
    assert ConceptTable.load(tmp_path / path.name) == table


@pytest.mark.parametrize(
    "sentence",
    [
        "Dark: with a colon # and a hash.",
        "'quoted' and \"quoted\"",
        "- a dash",
        "*star &anchor !tag @at %percent {brace} [bracket]",
        "yes",
        "1.5",
        "null",
        "Größe über 10 µm, 肝臓",
        "x" * 500 + " y",
    ],
)
def test_any_sentence_and_name_survives(sentence: str, tmp_path: Path) -> None:
    table = table_of(sentence, "second", name=sentence)
    write_table(table, tmp_path / "t.yaml")
    assert content(ConceptTable.load(tmp_path / "t.yaml")) == content(table)


def test_a_note_of_several_lines_is_a_comment(tmp_path: Path) -> None:
    write_table(table_of("A."), tmp_path / "t.yaml", note="first: line\nsecond line")
    assert (tmp_path / "t.yaml").read_text(encoding="utf-8").startswith("# first: line\n# second line\nmodality: CT\n")
    assert content(ConceptTable.load(tmp_path / "t.yaml")) == content(table_of("A."))


def test_a_folder_is_made(tmp_path: Path) -> None:
    write_table(table_of("A."), tmp_path / "new" / "folder" / "t.yaml")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["t.yaml"]


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("mine")
    with pytest.raises(FileExistsError, match=r"t\.yaml exists and is not overwritten"):
        write_table(table_of("A."), tmp_path / "t.yaml")
    assert (tmp_path / "t.yaml").read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    with pytest.raises(FileExistsError, match=r"folder is a file, not a folder"):
        check_new_file(tmp_path / "folder" / "t.yaml")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"no permission in "):
        check_new_file(tmp_path / "t.yaml")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(concept_files.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(table_of("A."), tmp_path / "t.yaml")
    assert list(tmp_path.iterdir()) == []
