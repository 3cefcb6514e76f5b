"""Comparison of a datalist's label names with the classes of the concept table."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)

_SIDES = ({"left", "right"}, {"anterior", "posterior"}, {"superior", "inferior"}, {"upper", "lower"})
_NOTHING = {"background", "unlabeled", "unlabelled", "ignore"}


def names_in_files(
    class_names: Sequence[str], *, softmax: bool = True, label_transforms: Sequence[Any] = ()
) -> Sequence[str] | None:
    """Return the class names if label files hold class numbers; None for regions and mapped labels."""
    return class_names if softmax and not label_transforms else None


def check_label_names(labels: Any, class_names: Sequence[str], source: str) -> None:
    """Raise an error if a datalist names labels 1, 2, ... as other classes than the concept table.

    Names may differ in words ("Anterior" for "anterior hippocampus") and a name that shares no word with any class
    is logged, unless all are such: then the table is that of another data set.

    Args:
        labels: as in the datalist: names by values, as the Decathlon has them, or values by names, as nnU-Net has
            them; anything else, and a datalist without, says nothing.
        class_names: in the order of the labels.
        source: what to call the datalist.

    Raises:
        ValueError: another number of labels, or a name that belongs to another class or to none.
    """
    names = _by_value(labels)
    if not names:
        return
    remedy = "Correct the datalist's 'labels' or the concept table, or take 'labels' out of the datalist."
    if sorted(names) != list(range(1, len(class_names) + 1)):
        raise ValueError(
            f"'{source}' names the labels {_listed(names)}; the concept table has {len(class_names)} classes, labels "
            f"1 to {len(class_names)}: {', '.join(class_names)}. {remedy}"
        )
    strangers = []
    for value, name in names.items():
        other = _meant(name, value, class_names)
        if other is not None:
            raise ValueError(
                f"'{source}' calls label {value} '{name}'; in the concept table that is class {other + 1}, "
                f"'{class_names[other]}', and class {value} is '{class_names[value - 1]}'. {remedy}"
            )
        if not any(_words(name) & _words(label) for label in class_names):
            strangers.append(value)
    if len(strangers) == len(names):
        raise ValueError(
            f"'{source}' names the labels {_listed(names)}; none of the classes of the concept table is called so: "
            f"{', '.join(class_names)}. {remedy}"
        )
    for value in strangers:
        logger.warning(
            "%s: label %d is '%s', class %d '%s'.", source, value, names[value], value, class_names[value - 1]
        )


def _by_value(labels: Any) -> dict[int, str]:
    """Return the foreground label names by value; empty if a key is no number, as for nnU-Net's regions."""
    if not isinstance(labels, Mapping):
        return {}
    pairs = [(value, key) if isinstance(value, int | list) else (key, value) for key, value in labels.items()]
    names = {str(value): str(name) for value, name in pairs}
    if not all(value.isdecimal() for value in names):
        return {}
    return {int(value): name for value, name in names.items() if int(value) and _words(name) - _NOTHING}


def _meant(name: str, value: int, class_names: Sequence[str]) -> int | None:
    """Return the index of the class that a label name means, if it is not the one of its value."""
    own = class_names[value - 1]
    if _words(name) == _words(own):
        return None
    others = [position for position in range(len(class_names)) if position != value - 1]
    exact = [p for p in others if _words(class_names[p]) == _words(name)]
    agreeing = [p for p in others if _words(class_names[p]) & _words(name) and not _opposed(name, class_names[p])]
    fits = bool(_words(name) & _words(own)) and not _opposed(name, own)
    return next(iter(exact or ([] if fits else agreeing)), None)


def _opposed(one: str, other: str) -> bool:
    """Return whether one name says left where the other says right, or similar."""
    pairs = ((_words(one) & pair, _words(other) & pair) for pair in _SIDES)
    return any(a and b and not a & b for a, b in pairs)


def _words(name: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", name.casefold()))


def _listed(names: Mapping[int, str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in sorted(names.items()))
