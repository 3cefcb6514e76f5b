"""The words of a request: some of a table's classes, other sentences, classes that the table does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scripts.words.checks import check_names, check_text, find_name, normalised, tidy
from scripts.words.lines import Words, read_edits, read_fields
from scripts.words.table import ConceptTable

__all__ = ["requested_table", "unknown_classes"]


def requested_table(
    table: ConceptTable, words: Mapping[str, Words] | None = None, classes: Sequence[str] | None = None
) -> ConceptTable:
    """Make the table of a request.

    Args:
        table: the one that the model reads otherwise.
        words: by class, a mapping from concepts to sentences, or a text as `words_text` writes it. A class of the
            table needs only what is to change. A class that the table does not have needs one sentence at least: its
            other concepts count as left out.
        classes: to be segmented, in this order, labels 1, 2, ...; None: those of the table, then the further ones of
            ``words`` in their order.

    Returns:
        the table itself if it already is what is asked for

    Raises:
        ValueError: a class without words, twice, or with the words of another; words that cannot be read.
    """
    words = {} if words is None else words
    if not isinstance(words, Mapping):
        raise ValueError(f"Other words are {words!r}; expected {{class: {{concept: sentence}}}}.")
    further = {str(name): content for name, content in words.items() if not _is_in(str(name), table)}
    edits = read_edits(table, {name: content for name, content in words.items() if str(name) not in further})
    result = _with_further(table.replace_sentences(edits), further)
    if classes is not None:
        result = _only(result, classes)
    if (result.classes, result.sentences) == (table.classes, table.sentences):
        return table
    result.check_told_apart()
    return result


def unknown_classes(table: ConceptTable, known: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the classes of a table that are unknown by name and by words.

    Args:
        table: of a request.
        known: the sentences of each known class, by its name.
    """
    rows = {tuple(row) for row in known.values()}
    return [
        name for name, row in zip(table.classes, table.sentences, strict=True) if name not in known and row not in rows
    ]


def _is_in(name: str, table: ConceptTable) -> bool:
    return normalised(name) in map(normalised, table.classes)


def _with_further(table: ConceptTable, further: Mapping[str, Words]) -> ConceptTable:
    if not further:
        return table
    rows = tuple(_row(table, name, content) for name, content in further.items())
    return replace(
        table,
        classes=(*table.classes, *map(tidy, further)),
        sentences=(*table.sentences, *rows),
        codes=(*table.codes, *(None for _ in rows)) if table.codes else (),
        reviewed=False,
        alternatives=(),
    )


def _row(table: ConceptTable, name: str, content: Words) -> tuple[str, ...]:
    """The K sentences of a further class; a concept that it lacks repeats a sentence, which then counts once."""
    where = f"The words of '{name}'"
    if not isinstance(content, str | Mapping):
        raise ValueError(f"{where} are {content!r}; expected {{concept: sentence}}, or a sentence.")
    given = read_fields(table, where, content) if isinstance(content, str) else content
    if not given:
        raise ValueError(
            f"'{name}' is none of {', '.join(table.classes)} and has no words. Describe it: one sentence at least, for "
            f"one of {', '.join(table.concepts)}."
        )
    found = {find_name(concept, table.concepts, "concept", where): tidy(text) for concept, text in given.items()}
    for concept, sentence in found.items():
        check_text(sentence, f"{where}: '{concept}'")
    first = next(iter(found.values()))
    return tuple(found.get(concept, first) for concept in table.concepts)


def _only(table: ConceptTable, classes: Sequence[str]) -> ConceptTable:
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not classes:
        raise ValueError(f"`classes` must list at least one class, such as [{table.classes[0]}]; found {classes!r}.")
    for name in classes:
        if not _is_in(str(name), table):
            raise ValueError(
                f"`classes` asks for '{name}', which has no words: it is none of {', '.join(table.classes)}. Describe "
                f"it under `words`, or correct the name."
            )
    check_names([tidy(name) for name in classes], "class", "`classes`")
    return table.only([str(name) for name in classes])
