"""Codes of classes in a coding scheme such as SNOMED CT."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.trust.parsing import check_keys
from scripts.words.checks import check_text, tidy

REQUIRED_KEYS = ("scheme", "value", "meaning")
KNOWN_KEYS = (*REQUIRED_KEYS, "modifier", "abnormal")
MODIFIERS = ("left", "right", "anterior", "posterior")
LONGEST = {"scheme": 16, "value": 64, "meaning": 64}  # characters; DICOM has no room for more


@dataclass(frozen=True)
class ClassCode:
    """A coded concept, and what narrows it down to the class.

    The network does not read it, and it has no part in a table's digest.

    Attributes:
        scheme: designator of the coding scheme in DICOM: "SCT" for SNOMED CT, "NCIt".
        value: the code.
        meaning: what the scheme calls it.
        modifier: one of ``MODIFIERS`` or empty: the left one of a pair, the anterior part of a structure.
        abnormal: a morphologically abnormal structure, such as a tumor, and not an anatomical one.
    """

    scheme: str
    value: str
    meaning: str
    modifier: str = ""
    abnormal: bool = False


def read_code(content: object, where: str) -> ClassCode | None:
    """Read the code of one class from the value of ``code`` in its table; None if there is none.

    Args:
        content: as read from YAML, None for a class without a code.
        where: how error messages name the class.

    Raises:
        ValueError: it is no mapping, lacks a key or has an unknown one, or a value is none of those allowed.
    """
    if content is None:
        return None
    where = f"{where}, code"
    if not isinstance(content, dict):
        raise ValueError(f"{where} must be a mapping with the keys {', '.join(REQUIRED_KEYS)}, found {content!r}.")
    check_keys(content, required=REQUIRED_KEYS, known=KNOWN_KEYS, where=where)
    for key in REQUIRED_KEYS:
        check_text(tidy(content[key]), f"{where}: '{key}'")
        if len(content[key]) > LONGEST[key]:
            raise ValueError(f"{where}: '{key}' has {len(content[key])} characters, expected {LONGEST[key]} at most.")
    modifier, abnormal = content.get("modifier", ""), content.get("abnormal", False)
    if modifier not in ("", *MODIFIERS):
        raise ValueError(f"{where}: 'modifier' must be one of {', '.join(MODIFIERS)}, found {modifier!r}.")
    if not isinstance(abnormal, bool):
        raise ValueError(f"{where}: 'abnormal' must be true or false, found {abnormal!r}.")
    scheme, value, meaning = (tidy(content[key]) for key in REQUIRED_KEYS)
    return ClassCode(scheme, value, meaning, modifier=modifier, abnormal=abnormal)
