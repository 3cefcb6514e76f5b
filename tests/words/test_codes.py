from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.words.codes import ClassCode
from scripts.words.loading import load_concepts
from scripts.words.table import ConceptTable

KIDNEY = {"scheme": "SCT", "value": "64033007", "meaning": "Kidney", "modifier": "left"}


def load(folder: Path, code: Any, concept: str = "shape") -> ConceptTable:
    classes: list[dict[str, Any]] = [
        {"name": "left kidney", concept: "A bean."},
        {"name": "liver", concept: "A wedge."},
    ]
    if code is not None:
        classes[0]["code"] = code
    path = folder / "organs.yaml"
    path.write_text(yaml.safe_dump({"modality": "CT", "concepts": [concept], "classes": classes}))
    return ConceptTable.load(path)


def test_codes_are_read_where_classes_have_one(tmp_path: Path) -> None:
    assert load(tmp_path, KIDNEY).codes == (ClassCode("SCT", "64033007", "Kidney", modifier="left"), None)
    tumor = {"scheme": "SCT", "value": "108369006", "meaning": "Neoplasm", "abnormal": True}
    assert load(tmp_path, tumor).codes[0] == ClassCode("SCT", "108369006", "Neoplasm", abnormal=True)
    assert load(tmp_path, None).codes == (None, None)


def test_codes_have_no_part_in_words_or_digest(tmp_path: Path) -> None:
    """So that a checkpoint fits a table to which codes were added."""
    plain, coded = load(tmp_path, None), load(tmp_path, KIDNEY)
    assert coded.digest == plain.digest
    assert (coded.concepts, coded.sentences) == (plain.concepts, plain.sentences)


def test_codes_stay_with_their_classes_in_every_format(tmp_path: Path) -> None:
    coded = load(tmp_path, KIDNEY)
    swapped = load_concepts(tmp_path / "organs.yaml", "name", swap=["left kidney", "liver"])
    assert swapped.codes == coded.codes == coded.as_format("aggregated").codes


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("64033007", r"code must be a mapping with the keys scheme, value, meaning, found '64033007'"),
        ({**KIDNEY, "side": "left"}, r"code has an unknown key 'side'"),
        ({"scheme": "SCT", "value": "64033007"}, r"code lacks 'meaning'"),
        ({**KIDNEY, "value": 64033007}, r"code: 'value' must be text, found 64033007; quote it"),
        ({**KIDNEY, "scheme": " "}, r"code: 'scheme' is empty"),
        ({**KIDNEY, "meaning": "k" * 65}, r"code: 'meaning' has 65 characters, expected 64 at most"),
        ({**KIDNEY, "scheme": "S" * 17}, r"code: 'scheme' has 17 characters, expected 16 at most"),
        ({**KIDNEY, "modifier": "upper"}, r"'modifier' must be one of left, right, anterior, posterior, found 'upper'"),
        ({**KIDNEY, "abnormal": "yes"}, r"'abnormal' must be true or false, found 'yes'"),
    ],
)
def test_faulty_code_is_refused_by_name(tmp_path: Path, code: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, code)
    assert "organs.yaml: class 'left kidney'" in str(caught.value)


def test_concept_cannot_be_named_like_the_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"organs\.yaml: 'code' is a key of the class itself"):
        load(tmp_path, None, concept="code")


def test_table_built_in_code_has_a_code_a_class_or_none() -> None:
    with pytest.raises(ValueError, match=r"2 classes but 1 codes"):
        ConceptTable("CT", ("title",), ("a", "b"), (("A.",), ("B.",)), codes=(None,))
