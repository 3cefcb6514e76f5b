"""Concept table: the sentences that describe the classes, one row a class and one column a concept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.words.checks import (
    KNOWN_KEYS,
    REQUIRED_KEYS,
    as_list,
    check_entry,
    check_keys,
    check_names,
    check_text,
    find_name,
    normalised,
    read_alternatives,
    read_yaml,
    tidy,
)
from scripts.words.codes import ClassCode, read_code
from scripts.words.sentences import aggregate, name_sentence, same_sentences, shuffle_words

FORMATS = ("fixed", "aggregated", "name")


@dataclass(frozen=True)
class ConceptTable:
    """Table of sentences for N foreground classes under the same K concepts (section 3.1).

    The paper's template is "[class], [shape], [location], [appearance/density], [contour/symmetry],
    [internal texture] in [modality]", so K = 6. The concepts are named by the file, so that any other set of
    them (the ambiguous concepts of Table 2, for one) is another file and nothing else.

    Attributes:
        modality: as it stands in a sentence: "CT", "MR".
        concepts: the names of the K concepts.
        classes: the names of the N classes in the order of their labels, without the background.
        sentences: N rows of K sentences, whitespace collapsed.
        reviewed: whether a reader who knows the anatomy has checked every sentence.
        source: what error messages call this table, usually its file.
        codes: what each of the N classes is called in a coding scheme, or None; empty where no class has one.
        alternatives: other sentences that say the same, for training; N rows of K lists, or empty where there are none.

    Raises:
        ValueError: the table is incomplete or contradicts itself; the message names source and class.
    """

    modality: str
    concepts: tuple[str, ...]
    classes: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]  # N x K
    reviewed: bool = False
    source: str = "concept table"
    codes: tuple[ClassCode | None, ...] = ()
    alternatives: tuple[tuple[tuple[str, ...], ...], ...] = ()  # N x K x any number

    def __post_init__(self) -> None:
        check_names(self.concepts, "concept", self.source)
        check_names(self.classes, "class", self.source)
        check_text(self.modality, f"{self.source}: modality")
        if not isinstance(self.reviewed, bool):
            raise ValueError(f"{self.source}: 'reviewed' must be true or false, found {self.reviewed!r}.")
        if len(self.sentences) != len(self.classes):
            raise ValueError(f"{self.source}: {len(self.classes)} classes but {len(self.sentences)} rows of sentences.")
        if len(self.codes) not in (0, len(self.classes)):
            raise ValueError(f"{self.source}: {len(self.classes)} classes but {len(self.codes)} codes.")
        for name, row in zip(self.classes, self.sentences, strict=True):
            if len(row) != len(self.concepts):
                raise ValueError(
                    f"{self.source}: class '{name}' has {len(row)} sentences, expected {len(self.concepts)}: "
                    f"{', '.join(self.concepts)}."
                )
            for concept, sentence in zip(self.concepts, row, strict=True):
                check_text(sentence, f"{self.source}: class '{name}', concept '{concept}'")
        if len(self.alternatives) not in (0, len(self.classes)):
            raise ValueError(
                f"{self.source}: {len(self.classes)} classes but {len(self.alternatives)} of alternatives."
            )

    @classmethod
    def load(cls, path: str | Path) -> ConceptTable:
        """Read a table from a YAML file with the keys modality, concepts, classes and, optionally, reviewed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not such a table; the message names the file, the class and the key.
        """
        source = Path(path).name
        content = read_yaml(Path(path))
        check_keys(content, required=REQUIRED_KEYS, known=KNOWN_KEYS, where=source)
        concepts = as_list(content["concepts"], f"{source}: 'concepts'")
        check_names(concepts, "concept", source)
        for key in {"name", "code", "alternatives"} & set(concepts):
            raise ValueError(f"{source}: '{key}' is a key of the class itself; give the concept another name.")
        entries = as_list(content["classes"], f"{source}: 'classes'")
        for position, entry in enumerate(entries, start=1):
            check_entry(entry, concepts, position, source)
        return cls(
            modality=content["modality"],
            concepts=tuple(concepts),
            classes=tuple(tidy(entry["name"]) for entry in entries),
            sentences=tuple(tuple(tidy(entry[concept]) for concept in concepts) for entry in entries),
            reviewed=content.get("reviewed", False),
            source=source,
            codes=tuple(read_code(entry.get("code"), f"{source}: class '{entry['name']}'") for entry in entries),
            alternatives=tuple(
                read_alternatives(entry.get("alternatives"), concepts, f"{source}: class '{entry['name']}'")
                for entry in entries
            ),
        )

    @property
    def sentences_flat(self) -> tuple[str, ...]:
        """All N * K sentences, class by class: sentence k of class i stands at i * K + k."""
        return tuple(sentence for row in self.sentences for sentence in row)

    def alternatives_of(self, row: int) -> tuple[tuple[str, ...], ...]:
        """Return the K lists of other sentences of a class, each empty where it has none."""
        return self.alternatives[row] if self.alternatives else ((),) * len(self.concepts)

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, of classes, concepts and sentences, and of nothing else in the table."""
        content = {"classes": self.classes, "concepts": self.concepts, "sentences": self.sentences}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def same_sentence(self) -> NDArray[np.bool_]:
        """Where classes i and j have the same sentence for concept k, apart from case.  # N x N x K

        Such classes are no negatives of each other in the local alignment; i = j is always True.
        """
        return same_sentences(self.sentences)

    def as_format(self, name: str) -> ConceptTable:
        """Return the table in one of the formats of Table 2; the last two have one sentence a class, K = 1.

        "fixed": the table as it stands. "aggregated": one sentence that joins all concepts of a class.
        "name": "<Class> in a <modality> image." The ambiguous concepts of Table 2 are a table of their own.

        Raises:
            ValueError: there is no such format.
        """
        if name == "fixed":
            return self
        if name == "aggregated":
            rows = tuple((aggregate(row),) for row in self.sentences)
        elif name == "name":
            rows = tuple((name_sentence(label, self.modality),) for label in self.classes)
        else:
            raise ValueError(f"{self.source}: unknown text format '{name}', expected one of {', '.join(FORMATS)}.")
        return replace(self, concepts=(name,), sentences=rows, alternatives=())

    def without(self, concept: str) -> ConceptTable:
        """Return the table without one concept.

        Raises:
            ValueError: the table has no such concept, or no other one.
        """
        column = self.concepts.index(find_name(concept, self.concepts, "concept", self.source))
        if len(self.concepts) == 1:
            raise ValueError(f"{self.source}: '{concept}' is the only concept and cannot be left out.")
        return replace(
            self,
            concepts=self.concepts[:column] + self.concepts[column + 1 :],
            sentences=tuple(row[:column] + row[column + 1 :] for row in self.sentences),
            alternatives=tuple(row[:column] + row[column + 1 :] for row in self.alternatives),
        )

    def only_concept(self, concept: str) -> ConceptTable:
        """Return the table with one concept alone.

        Raises:
            ValueError: the table has no such concept.
        """
        table = self
        for other in set(self.concepts) - {find_name(concept, self.concepts, "concept", self.source)}:
            table = table.without(other)
        return table

    def replace_sentences(self, edits: Mapping[str, Mapping[str, str]]) -> ConceptTable:
        """Return a table with some sentences replaced, given as {class: {concept: sentence}}.

        Class and concept names may differ in case. A table that was changed no longer counts as reviewed.

        Raises:
            ValueError: an unknown class or concept, or a sentence that is empty or no text.
        """
        rows = [list(row) for row in self.sentences]
        for name, changes in edits.items():
            label = find_name(name, self.classes, "class", self.source)
            if not isinstance(changes, Mapping):
                raise ValueError(f"{self.source}: class '{label}': expected {{concept: sentence}}, found {changes!r}.")
            for concept, sentence in changes.items():
                column = self.concepts.index(find_name(concept, self.concepts, "concept", self.source))
                rows[self.classes.index(label)][column] = tidy(sentence)
        sentences = tuple(tuple(row) for row in rows)
        if sentences == self.sentences:
            return self
        return replace(self, sentences=sentences, reviewed=False, alternatives=())

    def swapped(self, first: str, second: str) -> ConceptTable:
        """Return the table with all sentences of two classes exchanged: each class is described as the other.

        Raises:
            ValueError: the table has no such class, or both are the same.
        """
        i, j = (self.classes.index(find_name(name, self.classes, "class", self.source)) for name in (first, second))
        if i == j:
            raise ValueError(f"{self.source}: '{first}' cannot be swapped with itself; name two classes.")
        rows = list(range(len(self.classes)))
        rows[i], rows[j] = rows[j], rows[i]
        return replace(
            self,
            sentences=tuple(self.sentences[row] for row in rows),
            alternatives=tuple(self.alternatives_of(row) for row in rows),
        )

    def only(self, names: Sequence[str]) -> ConceptTable:
        """Return the table of some of its classes, in the order in which they are named.

        Raises:
            ValueError: the table has no such class, or one is named twice.
        """
        labels = [find_name(name, self.classes, "class", self.source) for name in names]
        rows = [self.classes.index(label) for label in labels]
        return replace(
            self,
            classes=tuple(labels),
            sentences=tuple(self.sentences[row] for row in rows),
            codes=tuple(self.codes[row] for row in rows) if self.codes else (),
            alternatives=tuple(self.alternatives_of(row) for row in rows),
        )

    def check_told_apart(self) -> None:
        """Check that no two classes have the same words, which would give them one mask.

        Raises:
            ValueError: two have; the message names them.
        """
        found: dict[tuple[str, ...], str] = {}
        for name, row in zip(self.classes, self.sentences, strict=True):
            other = found.setdefault(tuple(map(normalised, row)), name)
            if other != name:
                raise ValueError(
                    f"{self.source}: '{other}' and '{name}' have the same words, so that nothing tells them apart. "
                    "Write down what differs, such as the location."
                )

    def shuffled(self, seed: int) -> ConceptTable:
        """Return the table with all its words mixed at random; see `shuffle_words`."""
        return replace(self, sentences=shuffle_words(self.sentences, seed), alternatives=())
