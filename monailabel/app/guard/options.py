"""What the options of a request may be: those that the server lists, each a value of its kind, all of it plain data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from guard.plain import require_name, require_plain, require_text  # the bundle's, put here by start.sh

Rule = Callable[[str, Any], None]
"""Raises a ValueError that names the option and what is expected of it."""

LARGEST = 1_000_000
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd")
TYPES = ("uint8", "uint16", "int16", "int32", "float32")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
SERVERS_OWN = ("strategy", "epistemic_entropy", "epistemic_ts", "ts", "name", "path")
"""What the server itself notes of an image or a label."""


def check(options: Any, rules: Mapping[str, Rule], what: str) -> dict[str, Any]:
    """The options, if each is listed and of its kind.

    Raises:
        ValueError: they are no mapping, one is not listed, or its value is not of its kind or no plain data.
    """
    if not isinstance(options, Mapping):
        raise ValueError(f"The options of {what} are {_shown(options)}; expected a mapping from names to values.")
    for name, value in options.items():
        require_plain({name: value}, "The request")
        if name not in rules:
            near = get_close_matches(str(name), rules, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(rules)}."
            raise ValueError(f"{what} has no option '{_shown(name)}'; {hint}")
        rules[name](f"The option '{name}'", value)
    return dict(options)


def listed(config: Mapping[str, Any]) -> dict[str, Rule]:
    """A rule for each option that MONAI Label lists with its default, or with the values to choose from."""
    return {name: _of_kind(default) for name, default in config.items()}


def one_of(*values: Any) -> Rule:
    """One of some values, or a list of some of them, of which MONAI Label takes the first."""

    def rule(where: str, value: Any) -> None:
        given = value if isinstance(value, list) and value else [value]
        if any(isinstance(entry, list | dict) or entry not in values for entry in given):
            raise ValueError(f"{where} is {_shown(value)}; expected one of {', '.join(map(repr, values))}.")

    return rule


def switch(where: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{where} is {_shown(value)}; expected true or false.")


def whole(low: int, high: int = LARGEST) -> Rule:
    def rule(where: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{where} is {_shown(value)}; expected a whole number from {low} to {high}.")

    return rule


def number(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ValueError(f"{where} is {_shown(value)}; expected a number.")


def share(where: str, value: Any) -> None:
    number(where, value)
    if value != -1 and not 0 <= value < 1:
        raise ValueError(f"{where} is {value}; expected a share from 0 to below 1, or -1 for the bundle's own cases.")


def text(where: str, value: Any) -> None:
    require_text(value, where, lines=True)


def name(where: str, value: Any) -> None:
    require_name(value, where)


def tag(where: str, value: Any) -> None:
    """Of a label that a model has made."""
    require_name(value, where)
    if value == "final":
        raise ValueError(f"{where} is 'final', which labels have that somebody has submitted; choose another.")


def gpus(where: str, value: Any) -> None:
    if value != "all" and not (isinstance(value, str) and all(part.strip().isdecimal() for part in value.split(","))):
        raise ValueError(f"{where} is {_shown(value)}; expected 'all', or numbers of GPUs between commas.")


def plain(where: str, value: Any) -> None:
    """Anything, since `check` has refused what is no plain data."""


def image_ids(known: Collection[str]) -> Rule:
    """A list of images, or which of them: all, labeled, unlabeled."""

    def rule(where: str, value: Any) -> None:
        if value in ("all", "labeled", "unlabeled"):
            return
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise ValueError(f"{where} is {_shown(value)}; expected all, labeled, unlabeled, or a list of images.")
        strangers = [entry for entry in value if entry not in known]
        if strangers:
            raise ValueError(f"{where} names {_shown(strangers[0])}, which is none of the {len(known)} images.")

    return rule


RESULT: dict[str, Rule] = {
    "result_extension": one_of(*EXTENSIONS),
    "result_dtype": one_of(*TYPES),
    "result_compress": switch,
    "save_label": switch,
    "label_tag": tag,
    "label_info": plain,
    "logging": one_of(*LEVELS, *map(str.lower, LEVELS)),
    "client_id": text,
}
"""What may be said of the result of any inference, and by whom it is asked for."""


def inference(config: Mapping[str, Any], devices: Sequence[str]) -> dict[str, Rule]:
    """The rules for one image; `config` is what the model lists."""
    return {**listed(config), **RESULT, "device": one_of(*devices)}


def batch(config: Mapping[str, Any], devices: Sequence[str], images: Collection[str]) -> dict[str, Rule]:
    """The rules for all images, or some."""
    amount = {"max_workers": whole(0, 64), "max_batch_size": whole(0), "multi_gpu": switch, "gpus": gpus}
    return {**inference(config, devices), **amount, "images": image_ids(images)}


def training(config: Mapping[str, Any], devices: Sequence[str]) -> dict[str, Rule]:
    """The rules for a training; where its experiment is tracked is the server's affair."""
    known: dict[str, Rule] = {
        "max_epochs": whole(1, 100_000),
        "val_split": share,
        "gpus": gpus,
        "run_id": one_of("", "run", "training"),
        "pretrained": one_of(True),  # a model from nothing would take the place of the one in use unjudged
        "tracking_uri": one_of(config.get("tracking_uri", ""), ""),
        "tracking_experiment_name": lambda where, value: value == "" or name(where, value),
        "client_id": text,
    }
    return {**listed(config), **known, "device": one_of(*devices)}


def scoring(devices: Sequence[str]) -> dict[str, Rule]:
    """The rules for scoring by uncertainty."""
    amount = {"simulation_size": whole(1, 100), "max_samples": whole(0), "max_workers": whole(0, 64)}
    return {**amount, "multi_gpu": switch, "gpus": gpus, "device": one_of(*devices), "client_id": text}


def next_sample(config: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules for choosing the image to annotate next; `config` is what the strategy lists."""
    return {**listed(config), "client_id": text, "label_tag": name}


def notes(given: Any, what: str) -> dict[str, Any]:
    """What a client notes of an image or a label: plain data under names that the server does not use itself.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{what} are {_shown(given)}; expected a mapping.")
    require_plain(given, what)
    taken = [key for key in given if key in SERVERS_OWN]
    if taken:
        raise ValueError(f"{what} set '{taken[0]}', which the server writes itself; leave it out.")
    return dict(given)


def _of_kind(default: Any) -> Rule:
    if isinstance(default, bool):
        return switch
    if isinstance(default, int):
        return whole(-LARGEST)
    if isinstance(default, float):
        return number
    if isinstance(default, str):
        return text
    return one_of(*default) if isinstance(default, list | tuple) else plain


def _shown(value: Any) -> str:
    shown = value if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."
