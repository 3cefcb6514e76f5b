"""Comparison of a datalist's label names with the classes of the concept table."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)

REMEDY = "Correct the datalist's 'labels' or the concept table, or take 'labels' out of the datalist."
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
        ValueError: another number of labels, a name that belongs to another class, to none or to the background, no
            name, or a value that is no whole number or stands twice.
    """
    all_names = _by_value(labels, source)
    zero = all_names.get(0, "")
    if any(_words(zero) == _words(name) for name in class_names):
        raise ValueError(f"'{source}' calls label 0 '{zero}', which is a class; 0 is the background. {REMEDY}")
    names = {value: name for value, name in all_names.items() if value and _words(name) - _NOTHING}
    nothing = {value: name for value, name in all_names.items() if value and value not in names}
    if not names and not nothing:
        return
    if sorted(names) != list(range(1, len(class_names) + 1)):
        raise ValueError(
            f"'{source}' names the labels {_listed({**names, **nothing})}; the concept table has {len(class_names)} "
            f"classes, labels 1 to {len(class_names)}: {', '.join(class_names)}. {REMEDY}"
        )
    strangers = []
    for value, name in names.items():
        other = _meant(name, value, class_names)
        if other is not None:
            raise ValueError(
                f"'{source}' calls label {value} '{name}'; in the concept table that is class {other + 1}, "
                f"'{class_names[other]}', and class {value} is '{class_names[value - 1]}'. {REMEDY}"
            )
        if not any(_words(name) & _words(label) for label in class_names):
            strangers.append(value)
    if len(strangers) == len(names):
        raise ValueError(
            f"'{source}' names the labels {_listed(names)}; none of the classes of the concept table is called so: "
            f"{', '.join(class_names)}. {REMEDY}"
        )
    for value in strangers:
        logger.warning(
            "%s: label %d is '%s', class %d '%s'.", source, value, names[value], value, class_names[value - 1]
        )


def _by_value(labels: Any, source: str) -> dict[int, str]:
    """Return the label names by value; empty if labels are regions, as nnU-Net has them.

    Raises:
        ValueError: a value is no whole number or stands twice, or a name is empty.
    """
    if isinstance(labels, list) and labels and str(labels[0]).casefold() in _NOTHING:
        labels = dict(enumerate(labels))
    if not isinstance(labels, Mapping):
        if labels:
            logger.warning("%s: 'labels' are not compared with the classes; expected names by values.", source)
        return {}
    by_name = any(isinstance(value, int | float | list) for value in labels.values())
    pairs = [(value, key) if by_name else (key, value) for key, value in labels.items()]
    if any(isinstance(value, list) for value, _ in pairs):
        return {}
    names: dict[int, str] = {}
    for value, name in pairs:
        if not isinstance(name, str):
            raise ValueError(f"'{source}' calls label {value} {name!r}; expected a name. {REMEDY}")
    for value, name in ((str(value).strip(), str(name).strip()) for value, name in pairs):
        if not value.isdecimal():
            raise ValueError(f"'{source}' has the label value '{value}' for '{name}'; expected 0, 1, 2, ... {REMEDY}")
        if int(value) in names:
            raise ValueError(f"'{source}' calls label {int(value)} both '{names[int(value)]}' and '{name}'. {REMEDY}")
        if not _words(name):
            raise ValueError(f"'{source}' has no name for label {value}, found '{name}'. {REMEDY}")
        names[int(value)] = name
    return names


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
