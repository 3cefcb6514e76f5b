"""The bundle's commands: ``python -m scripts.cli COMMAND --help``, in the bundle's folder.

A command's module is imported when the command is called, since torch and MONAI take many seconds. MONAI Label, which
drops ``scripts`` between runs and so forbids late imports of it elsewhere, does not load this file.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any

import fire

from scripts.configuration.console import prepare_console

NAME = "python -m scripts.cli"
TEXTS = ("str", "str | None")
"""Annotations of parameters that are never read as numbers."""
HELP = {"--help", "-h"}
_FUNCTIONS = {  # module of `scripts`, and function in it
    "benchmark": "benchmark.command:benchmark",
    "check": "configuration.check:check",
    "check_data": "data.check.command:check_data",
    "compare": "experiments.compare:compare_runs",
    "datalist": "data.public.datalists:make_datalist",
    "describe_export": "export.network:describe_export",
    "experiments": "experiments.commands:run_experiments",
    "export_model": "export.command:export_model",
    "make_phantom": "data.phantom.dataset:make_phantom",
    "make_text_encoder": "words.encoder_maker:make_text_encoder",
    "new_dataset": "data.own.new_dataset:new_dataset",
    "nnunet": "experiments.nnunet.command:run_nnunet",
    "picture": "report.command:picture",
    "prompt": "words.prompts:print_prompt",
    "release": "release.bundle:release_bundle",
    "report": "report.run_report:report",
    "score_predictions": "experiments.predictions:score_predictions",
    "segment_dicom": "dicom.segment:segment_dicom",
    "try_words": "app.command:try_words",
    "write_concepts": "words.writer:write_concepts",
}


def _file(place: str) -> Path:
    return Path(__file__).parent.joinpath(*place.split(":")[0].split(".")).with_suffix(".py")


COMMANDS = {name: place for name, place in _FUNCTIONS.items() if _file(place).is_file()}
"""A released bundle has those alone that a user of its model needs."""


def load_command(name: str) -> Callable[..., Any]:
    """Import and return the function of one of ``COMMANDS``."""
    module, function = COMMANDS[name].split(":")
    command: Callable[..., Any] = getattr(importlib.import_module(f"scripts.{module}"), function)
    return command


def summary(name: str) -> str:
    """Return the first line of a command's docstring without importing its module."""
    place = COMMANDS[name]
    tree = ast.parse(_file(place).read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == place.split(":")[1])
    return (ast.get_docstring(node) or "").split("\n")[0]


def main(arguments: list[str] | None = None) -> None:
    """Run one of ``COMMANDS`` from the command line; the return value is not printed."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in HELP or words[0] == "--":
        print(_overview())
        raise SystemExit(0)
    if words[0] not in COMMANDS:
        sys.exit(f"There is no command '{words[0]}'{_nearest(words[0], COMMANDS)}. {NAME} --help lists them.")
    command = load_command(words[0])
    if HELP & set(words) and "--" not in words:  # a command that takes any option would take this one
        words = [*(word for word in words if word not in HELP), "--", "--help"]
    texts = [name for name, p in inspect.signature(command).parameters.items() if str(p.annotation) in TEXTS]
    if texts:
        fire.decorators.SetParseFn(_text, *texts)(command)
    _check_options(words, inspect.signature(command).parameters)
    fire.Fire({words[0]: command}, command=words, name=NAME, serialize=lambda result: None)


def _text(word: str) -> str | None:
    """Return a word as it is, where Fire would read 2024_11 as a number; but quotes around it and None as Python's."""
    try:
        meant = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
    return meant if meant is None or isinstance(meant, str) else word


def _overview() -> str:
    rows = [f"  {name}\n      {summary(name)}" for name in COMMANDS]
    return "\n".join([f"{NAME} COMMAND --help tells the options of one of these:", "", *rows])


def _nearest(word: str, known: Iterable[str]) -> str:
    return "".join(f"; the nearest is {near}" for near in get_close_matches(word, known, n=1, cutoff=0.5))


def _check_options(words: list[str], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Exit at an option that the command does not have; Fire would run the command first."""
    options = [word.split("=")[0] for word in takewhile(lambda word: word != "--", words)]
    for word in options:
        if re.match("-[A-Za-z]{2}", word):  # to Fire a value
            sys.exit(f"{words[0]} has no option {word}; options have two dashes: -{word}. Nothing was done.")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in (word[2:].replace("-", "_") for word in options if word.startswith("--")):
        if name not in parameters and name.removeprefix("no") not in parameters:
            near = get_close_matches(name, parameters, n=1, cutoff=0.0)[0]
            sys.exit(f"{words[0]} has no option --{name}; the nearest is --{near}. Nothing was done.")


if __name__ == "__main__":
    prepare_console()
    main()
