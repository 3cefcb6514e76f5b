from __future__ import annotations

from typing import Any

import pytest

from scripts.trust.plain import require_name, require_plain, require_text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("$import os", r"file begins with '\$', which a configuration would evaluate, found '\$import os'"),
        ("  \n$x", r"file begins with '\$'"),
        ("\u200b\ufeff@x", r"file begins with '@'"),
        ({"a": [{"b": ("x", "%/etc/passwd")}]}, r"file: 'a', entry 0: 'b', entry 1 begins with '%'"),
        ({"a": {"_target_": "os.system"}}, r"file: 'a' has the key '_target_'"),
        ({"network#_target_": "os.system"}, r"file has the key 'network#_target_'"),
        ({"network::_mode_": "debug"}, r"file has the key 'network::_mode_'"),
        ({"$x": 1}, r"file, key '\$x' begins with '\$'"),
        ({"a": "see @##b"}, r"file: 'a' holds a reference that a configuration would resolve"),
        ({"a": "see %::b"}, r"file: 'a' holds a reference"),
    ],
)
def test_what_a_configuration_would_run_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_plain(value, "file")


@pytest.mark.parametrize(
    "value", [None, 3, 0.5, True, "", " ", "50 % of 3 $", "mail@place", {"a": [1, {"b": "x: y # z"}]}, "_target_"]
)
def test_plain_data_pass(value: Any) -> None:
    require_plain(value, "file")


def test_what_stands_in_a_file_many_times_is_looked_at_once() -> None:
    value: Any = ["x"]
    for _ in range(60):
        value = [value, value]  # 2 ** 60 paths, as YAML aliases make them
    require_plain(value, "file")
    deep: Any = "$x"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match=r"begins with '\$'"):
        require_plain(deep, "file")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "title must be text, found 3"),
        (
            "a\u200bb",
            r"invisible character U\+200B \(ZERO WIDTH SPACE\) at position 2, found 'a\\u200bb'; type it anew",
        ),
        ("\ufeffa", r"U\+FEFF \(ZERO WIDTH NO-BREAK SPACE\) at position 1"),
        ("a\x00", r"U\+0000"),
        ("a\x1b[31m", r"U\+001B"),
        ("a\u202eb", r"U\+202E \(RIGHT-TO-LEFT OVERRIDE\)"),
        ("a\u2028b", r"U\+2028 \(LINE SEPARATOR\)"),
        ("a\nb", r"U\+000A"),
        ("$a", r"begins with '\$'"),
    ],
)
def test_text_that_cannot_be_seen_as_it_is_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_text(value, "title")


def test_text_may_be_of_any_language_and_have_lines_where_that_is_said() -> None:
    for text in ("linke Niere", "Gefäß", "左肾", "T₁ ≈ 3 µm"):
        assert require_text(text, "title") == text
    assert require_text("a\n\tb", "title", lines=True) == "a\n\tb"


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../x", "/x", "a/b", "a\\b", "C:x", ".x", "-x", " x", "x ", "a\nb", "$x", "a*", None, 3],
)
def test_a_name_that_leads_elsewhere_or_nowhere_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=r"dataset_name (must be text|becomes the name|begins with|has the invisible)"):
        require_name(name, "dataset_name")


@pytest.mark.parametrize("name", ["hippocampus", "mmwhs_ct", "Case 1", "a-b.c", "3d", "Gefäß"])
def test_a_name_passes(name: str) -> None:
    assert require_name(name, "dataset_name") == name
