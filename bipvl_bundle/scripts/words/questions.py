"""Questions of training steps: which classes are asked for, in which order and in which words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.words.sentences import exchange_sides
from scripts.words.table import ConceptTable


@dataclass(frozen=True)
class Question:
    """The n classes that a step asks for, and their words.

    Attributes:
        classes: which rows of the table they are, in the order in which they are asked for.
        sentences: n rows of K sentences.
        kept: which of them say what a class is; the others are left out. At least one in each row.  # n x K
        mirrored: whether the words are those of a body whose sides are exchanged; the image then has to be mirrored.
    """

    classes: tuple[int, ...]
    sentences: tuple[tuple[str, ...], ...]
    kept: tuple[tuple[bool, ...], ...]
    mirrored: bool = False

    @classmethod
    def whole(cls, table: ConceptTable) -> Question:
        """Return a question for all classes of a table, in its order and words; a repeated sentence counts once."""
        kept = tuple(tuple(text not in row[:k] for k, text in enumerate(row)) for row in table.sentences)
        return cls(tuple(range(len(table.classes))), table.sentences, kept)


class QuestionSampler:
    """Draws the question of each training step at random, so that a network must read its words.

    Each probability is that of one kind of variation in a step, multiplied by ``strength``. A network that is to learn
    quickly begins with few variations: see `training.words.QuestionRamp`, which raises ``strength`` from 0 to 1.

    Draws come from Python's generator, which `SeedEpoch` seeds.

    Args:
        subset: some of the classes are asked for, between a quarter and all; voxels of the others are background.
        leave_out: some concepts are left out, in half of the cases the same for all classes.
        alternatives: each sentence that has alternatives is replaced by one of them.
        mirror: the image is mirrored from left to right, and left and right are exchanged in the words. Only for images
            whose first axis runs from left to right, as in a bundle's RAS orientation.

    Attributes:
        strength: 0 to 1.

    Raises:
        ValueError: a probability below 0 or above 1.
    """

    def __init__(
        self, *, subset: float = 0.0, leave_out: float = 0.0, alternatives: float = 0.0, mirror: float = 0.0
    ) -> None:
        probabilities = {"subset": subset, "leave_out": leave_out, "alternatives": alternatives, "mirror": mirror}
        for name, value in probabilities.items():
            if not 0 <= value <= 1:
                raise ValueError(f"The probability `{name}` of a question must be from 0 to 1, found {value}.")
        self.probabilities = probabilities
        self.strength = 1.0

    def draw(self, table: ConceptTable, labelled: Sequence[Sequence[bool]] | None = None) -> Question:
        """Draw the question of one step from the classes of a table.

        Args:
            table: of N classes.
            labelled: for each of B cases, which of the N classes its labels show; None: all. Each case is asked for
                one of them at least.
        """
        classes = list(range(len(table.classes)))
        if self._happens("subset"):
            random.shuffle(classes)
            asked = classes[: random.randint(max(1, len(classes) // 4), len(classes))]
            for row in labelled or ():
                if not any(row[label] for label in asked):
                    asked.append(next(label for label in classes if row[label]))
            classes = asked
        mirrored = self._happens("mirror")
        sentences = tuple(tuple(self._row(table, label, mirrored)) for label in classes)
        return Question(tuple(classes), sentences, self._kept(len(classes), len(table.concepts)), mirrored)

    def _happens(self, name: str) -> bool:
        return random.random() < self.probabilities[name] * self.strength

    def _row(self, table: ConceptTable, label: int, mirrored: bool) -> Sequence[str]:
        row = [
            random.choice(others) if others and self._happens("alternatives") else sentence
            for sentence, others in zip(table.sentences[label], table.alternatives_of(label), strict=True)
        ]
        return [exchange_sides(sentence) for sentence in row] if mirrored else row

    def _kept(self, classes: int, concepts: int) -> tuple[tuple[bool, ...], ...]:
        if not self._happens("leave_out"):
            return ((True,) * concepts,) * classes
        if random.random() < 0.5:
            return (_some_of(concepts),) * classes
        return tuple(_some_of(concepts) for _ in range(classes))


def _some_of(concepts: int) -> tuple[bool, ...]:
    """Draw a random non-empty part."""
    chosen = random.sample(range(concepts), random.randint(1, concepts))
    return tuple(k in chosen for k in range(concepts))
