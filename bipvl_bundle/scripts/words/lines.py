"""The words of a class as one line of text, for clients that edit lines of text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from scripts.trust.parsing import hint
from scripts.words.checks import check_text, find_name, normalised, tidy
from scripts.words.table import ConceptTable

__all__ = ["Words", "read_edits", "read_fields", "words_text"]

Words = str | Mapping[str, str]
"""The words of a class: a line of text, or {concept: sentence}."""

_FIELD = re.compile(r"\s*(?P<field>[^:;]+?)\s*:\s*(?P<start>.*)", re.DOTALL)


def words_text(table: ConceptTable, class_name: str) -> str:
    """Return '<concept>: <sentence>; <concept>: <sentence>; ...', or the sentence alone if there is one concept."""
    row = table.sentences[table.classes.index(class_name)]
    if len(table.concepts) == 1:
        return row[0]
    return "; ".join(f"{concept}: {sentence}" for concept, sentence in zip(table.concepts, row, strict=True))


def read_edits(table: ConceptTable, words: Mapping[str, Words]) -> dict[str, dict[str, str]]:
    """Return the sentences that differ from the table's, as {class: {concept: sentence}}.

    Args:
        table: what the words are put in the place of.
        words: by class, a text as `words_text` writes it, with every concept, or a mapping with some of them.

    Raises:
        ValueError: no mapping; an unknown class; a concept that is unknown, missing, given twice or empty. The
            message names class and concept.
    """
    if not isinstance(words, Mapping):
        raise ValueError(f"Other words are {words!r}; expected {{class: {{concept: sentence}}}}.")
    edits = {}
    for name, content in words.items():
        class_name = find_name(name, table.classes, "class", table.source)
        given = _read_text(table, class_name, content) if isinstance(content, str) else content
        edited = table.replace_sentences({class_name: given})
        old, new = (t.sentences[table.classes.index(class_name)] for t in (table, edited))
        changes = {c: after for c, before, after in zip(table.concepts, old, new, strict=True) if before != after}
        if changes:
            edits[class_name] = changes
    return edits


def _read_text(table: ConceptTable, class_name: str, text: str) -> dict[str, str]:
    where = f"The text for '{class_name}'"
    check_text(tidy(text), where)
    if text == words_text(table, class_name):  # whatever punctuation its sentences have
        return {}
    if len(table.concepts) == 1:
        return {table.concepts[0]: text}
    return _complete(table, where, _split(table, where, text))


def read_fields(table: ConceptTable, where: str, text: str) -> dict[str, str]:
    """Read '<concept>: <sentence>; ...' with any of a table's concepts; a text without one is the first concept's.

    Args:
        table: whose concepts they are.
        where: what to call the text in errors.
        text: one line.

    Raises:
        ValueError: a concept that is unknown or given twice, or a text that is empty.
    """
    check_text(tidy(text), where)
    named = any(_FIELD.fullmatch(part) for part in text.split(";"))
    return _split(table, where, text) if named else {table.concepts[0]: text}


def _split(table: ConceptTable, where: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    concept = ""
    for part in text.split(";"):
        field = _FIELD.fullmatch(part)
        name = _concept(table, field["field"]) if field else None
        if name is None or field is None:
            _check_continues(table, where, part, concept)
            found[concept] += f";{part}" if part.strip() else ""
        elif name in found:
            raise ValueError(f"{where} gives '{name}' twice; keep one of them.")
        else:
            concept = name
            found[concept] = field["start"]
    return found


def _concept(table: ConceptTable, name: str) -> str | None:
    return next((concept for concept in table.concepts if normalised(concept) == normalised(name)), None)


def _check_continues(table: ConceptTable, where: str, part: str, concept: str) -> None:
    """Check that a part without a concept continues a sentence and is no misspelt concept."""
    start = re.match(r"\s*([\w-]+)\s*:", part)
    if start:
        raise ValueError(f"{where} has an unknown concept '{start[1]}'{hint(start[1], table.concepts)}.")
    if not concept:
        shown = "; ".join(f"{name}: ..." for name in table.concepts)
        raise ValueError(f"{where} begins with '{tidy(part)[:40]}', expected '{shown}'.")


def _complete(table: ConceptTable, where: str, found: Mapping[str, str]) -> dict[str, str]:
    for concept in table.concepts:
        if concept not in found:
            raise ValueError(f"{where} lacks '{concept}'; give all of {', '.join(table.concepts)}.")
        check_text(tidy(found[concept]), f"{where}: '{concept}'")
    return {concept: tidy(sentence) for concept, sentence in found.items()}
