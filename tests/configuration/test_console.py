from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

import monai.bundle
import pytest

from scripts.configuration.console import LOGGERS, WARNINGS, prepare_console, prepare_run


@pytest.fixture(autouse=True)
def _undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name, _, _ in LOGGERS}
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with warnings.catch_warnings():
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def change() -> bool:
    """Whether `prepare_run` has changed anything in this process."""
    hook, filters = sys.excepthook, list(warnings.filters)
    prepare_run()
    return sys.excepthook is not hook or warnings.filters != filters


def test_server_notebook_or_test_that_loads_the_configs_is_left_alone() -> None:
    assert not change()


@pytest.mark.parametrize(("path", "changes"), [("bundle/__main__.py", True), ("bundle/scripts.py", False)])
def test_monai_bundle_is_reported_by_its_main_module(monkeypatch: pytest.MonkeyPatch, path: str, changes: bool) -> None:
    main = ModuleType("__main__")
    main.__file__ = monai.bundle.__file__.replace("bundle/__init__.py", path)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert change() == changes


def test_process_without_a_main_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    assert not change()


def test_only_the_warnings_of_the_list_are_ignored() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        prepare_console()
        for message, kind, _ in WARNINGS:
            warnings.warn(f"{message.replace('.*', 'a')} and so on", kind, stacklevel=1)
        warnings.warn("the words are not those of the checkpoint", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in told] == ["the words are not those of the checkpoint"]
