"""Operations on the sentences of a concept table: joined, named, mirrored, shuffled."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scripts.words.checks import normalised

_SPOKEN_VOWELS = frozenset("AEFHILMNORSX")
_SIDE = re.compile(r"\b(left|right)(?=(?:ward|wards|most)?\b)", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}
_WORD = re.compile(r"\w(?:\S*\w)?")  # with what stands inside of it: T1-weighted, prostate/uterus, patient's


def aggregate(row: Sequence[str]) -> str:
    """Join different sentences as '<First>: <second>; <third>; ... .', lower-casing all but proper capitals."""
    head, *rest = (sentence.rstrip(" .") for sentence in dict.fromkeys(row))
    return f"{head}: {'; '.join(_decapitalised(part) for part in rest)}." if rest else f"{head}."


def name_sentence(label: str, modality: str) -> str:
    """Return '<Class> in a <modality> image.'"""
    return f"{label[0].upper()}{label[1:]} in {article(modality)} {modality} image."


def article(word: str) -> str:
    """Return 'an' before a vowel sound, 'a' otherwise; initialisms are spelt out: a CT, an MR, an ultrasound."""
    initial = word[0].upper()
    return "an" if initial in (_SPOKEN_VOWELS if word[:2].isupper() else "AEIOU") else "a"


def same_sentences(rows: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    """Return where classes i and j have the same sentence for concept k, apart from case.  # n x n x K

    Args:
        rows: n rows of K sentences.
    """
    words = np.array([[normalised(sentence) for sentence in row] for row in rows], dtype=object)
    return np.asarray(words[:, None, :] == words[None, :, :], dtype=np.bool_)


def exchange_sides(sentence: str) -> str:
    """Exchange left and right in a sentence, also in words such as "rightward" and "left-sided"."""

    def other(match: re.Match[str]) -> str:
        side = _OTHER[match[1].lower()]
        return side.upper() if match[1].isupper() else side.capitalize() if match[1][0].isupper() else side

    return _SIDE.sub(other, sentence)


def shuffle_words(rows: Sequence[Sequence[str]], seed: int) -> tuple[tuple[str, ...], ...]:
    """Shuffle the words of all sentences over all sentences.

    Every sentence keeps its number of words and its punctuation. Sentences that were equal stay equal (each
    different sentence enters the pool once), so that the same classes are negatives of each other as before.

    Args:
        rows: N rows of K sentences.
        seed: of the dealing; one seed gives one result.
    """
    different = {normalised(sentence): sentence for row in rows for sentence in row}
    pool = [word for sentence in different.values() for word in _WORD.findall(sentence)]
    random.Random(seed).shuffle(pool)
    words = iter(pool)
    shuffled = {key: _WORD.sub(lambda _: next(words), sentence) for key, sentence in different.items()}
    return tuple(tuple(shuffled[normalised(sentence)] for sentence in row) for row in rows)


def _decapitalised(text: str) -> str:
    first = text.split(" ", 1)[0]
    return text[0].lower() + text[1:] if first == "A" or first[1:2].islower() else text
