from __future__ import annotations

from pathlib import Path

import pytest

from scripts.trust.parsing import check_keys, read_data, read_mapping


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_both_formats_are_read_by_their_suffix(tmp_path: Path) -> None:
    assert read_data(write(tmp_path, "a.json", '\ufeff{"a": [1, null]}')) == {"a": [1, None]}
    assert read_data(write(tmp_path, "a.yml", "a: &x [1]\nb: *x\n")) == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"a": 1, "b": {"c": 1, "c": 2}}', r"a\.json' is no valid JSON: key 'c' given twice"),
        ("a.yaml", "a: 1\nb:\n  c: 1\n  c: 2\n", r"(?s)a\.yaml' is no valid YAML: key 'c' given twice.*line 4"),
        ("a.json", '{"a": ', r"a\.json' is no valid JSON: .*line 1"),
        ("a.json", "[" * 100_000, r"a\.json' is no valid JSON: "),
        ("a.yaml", "a: [", r"a\.yaml' is no valid YAML"),
        ("a.yaml", "a: !!python/object/apply:os.system [touch x]", r"could not determine a constructor"),
    ],
)
def test_a_faulty_file_is_named_with_the_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_data(write(tmp_path, name, text))


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("- a", "a list"), ("a", "a str")])
def test_no_mapping_is_refused(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.yaml' holds {found}; expected settings\."):
        read_mapping(write(tmp_path, "a.yaml", text), "settings")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.yaml' is no valid YAML"):
        read_data(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1, "colour": 2, "clour": 3}, "^it has an unknown key 'clour'; did you mean 'colour'"),
        ({"a": 1, "xyz": 3}, "^it has an unknown key 'xyz'; known: a, colour"),
        ({"colour": 3}, "^it lacks 'a'"),
    ],
)
def test_keys_are_known_and_the_required_ones_there(content: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_keys(content, known=("a", "colour"), required=("a",), where="it")


def test_known_keys_pass() -> None:
    check_keys({"a": 1}, known=("a", "colour"), required=("a",), where="it")
