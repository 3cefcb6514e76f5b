"""Static check of a merged config: classes, arguments and references. Nothing is instantiated."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from pydoc import ErrorDuringImport, locate
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser, ReferenceResolver

__all__ = ["lint", "nearest_id", "printed_id", "walk_ids"]


def lint(parser: ConfigParser) -> Iterator[tuple[str, str]]:
    """Yield pairs of an id and the problem there; resolves the macros of `parser` in place."""
    try:
        parser.parse(reset=True)
    except (KeyError, IndexError, ValueError, OSError) as error:
        yield "", f"a macro (%) or a relative id cannot be resolved: {error}"
        return
    items = parser.ref_resolver.items
    for id, item in items.items():
        content = item.get_config()
        if id.startswith(parser.meta_key):
            continue
        if isinstance(item, ConfigComponent) and not item.is_disabled():
            for argument, text in _component_problems(item):
                place = f"{id}{ReferenceResolver.sep}{argument}" if argument else id
                yield place, f"{printed_id(id)}: {text}"
        elif isinstance(content, str):
            for ref in (ref for ref in ReferenceResolver.match_refs_pattern(content) if ref not in items):
                near = f"the nearest is '{nearest_id(ref, [parser])}'"
                yield id, f"{printed_id(id)}: there is no '{printed_id(ref)}' to refer to by @; {near}"


def _component_problems(item: ConfigComponent) -> Iterator[tuple[str, str]]:
    """Yield pairs of an argument, or "", and the problem with it."""
    name = item.resolve_module_name()
    if not isinstance(name, str) or name.startswith(("$", "@")):
        return
    try:
        target = locate(name)
    except ErrorDuringImport as error:
        yield "_target_", f"importing {name} fails: {error}"
        return
    if target is None:
        yield "_target_", f"there is no {name}: check its spelling, and that its package is installed"
    elif callable(target):
        mode = item.get_config().get("_mode_")
        yield from _binding_problems(name, target, item.resolve_args(), partial=mode == "callable")


def _binding_problems(
    name: str, target: Any, arguments: Mapping[str, Any], *, partial: bool
) -> Iterator[tuple[str, str]]:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # built in: it tells no signature
        return
    parameters = signature.parameters
    unknown = [argument for argument in arguments if argument not in parameters]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        unknown = []
    for argument in unknown:
        near = max(parameters, key=lambda p: SequenceMatcher(None, argument, p).ratio(), default="none")
        yield argument, f"{name} takes no argument '{argument}'; the nearest is '{near}'"
    accepted = {key: value for key, value in arguments.items() if key not in unknown}
    try:
        (signature.bind_partial if partial else signature.bind)(**accepted)
    except TypeError as error:
        yield "", f"{name}: {error}"


def printed_id(id: str) -> str:
    """Return a config id as users write it, with "#"."""
    return id.replace(ReferenceResolver.sep, "#")


def walk_ids(config: Any, id: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the id and the value of everything within a configuration."""
    if isinstance(config, (dict, list)):
        for _, sub_id, value in ReferenceResolver.iter_subconfigs(id, config):
            yield sub_id, value
            yield from walk_ids(value, sub_id)


def nearest_id(id: str, known: Iterable[ConfigParser]) -> str:
    """Return the known id most similar to `id` in its last name, preferring the same level."""
    parent, leaf = ReferenceResolver.split_id(id, last=True)

    def likeness(candidate: str) -> tuple[float, bool, float]:
        above, name = ReferenceResolver.split_id(candidate, last=True)
        of_name, of_id = SequenceMatcher(None, leaf, name), SequenceMatcher(None, id, candidate)
        return round(of_name.ratio(), 1), above == parent, of_id.ratio()

    def is_other(candidate: str) -> bool:
        return not f"{candidate}{ReferenceResolver.sep}".startswith((f"{id}{ReferenceResolver.sep}", "_"))

    ids = (sub_id for parser in known for sub_id, _ in walk_ids(parser.get()))
    return printed_id(max(filter(is_other, ids), key=likeness, default="none"))
