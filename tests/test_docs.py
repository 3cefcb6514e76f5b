"""Whether the pages for users lead somewhere: their links, the files that they name, the commands that they give."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from fire.parser import DefaultParseValue

from scripts.cli import COMMANDS, load_command
from scripts.configuration.check import check_config

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLE = REPOSITORY / "bipvl_bundle"
PAGES = [REPOSITORY / "README.md", *sorted((BUNDLE / "docs").glob("*.md"))]
SOURCES = [*(BUNDLE / "scripts").rglob("*.py"), *(BUNDLE / "configs").rglob("*.yaml")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
OF_THE_USER = re.compile(r"\bmine\b|_mine\b|/X\b")  # what the reader is to make, or to put in
OF_A_RELEASE = {"configs/infer.json"}


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each Python command in the page's blocks of shell."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "bash":
            for line in block.replace("\\\n", " ").splitlines():
                for command in line.split(" && "):
                    words = shlex.split(re.sub(r"(^|\s)#.*", "", command))  # a # within a word is an option's
                    yield from [words[words.index("-m") :]] if "-m" in words else []


def options(words: list[str]) -> dict[str, str]:
    names = [place for place, word in enumerate(words) if word.startswith("--")]
    return {words[place].removeprefix("--"): words[place + 1] for place in names if place + 1 < len(words)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}; there are {anchors(target)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_of_the_bundle_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"\b(?:configs|scripts|tests)/[\w/]+\.(?:py|yaml|json)\b", text)) - OF_A_RELEASE:
        if not OF_THE_USER.search(name):
            assert (BUNDLE / name).is_file() or (REPOSITORY / name).is_file(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_the_bundle_exist_with_their_options(page: Path) -> None:
    for words in commands(page):
        if words[1] == "scripts.cli":
            assert words[2] in COMMANDS
            parameters = inspect.signature(load_command(words[2])).parameters
            free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
            assert free or options(words).keys() <= parameters.keys()


def test_runs_of_monai_name_files_that_are_there_and_options_that_these_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BUNDLE)
    runs: dict[str, dict[str, str]] = {}
    for words in (words for page in PAGES for words in commands(page)):
        if words[1] == "monai.bundle" and not OF_THE_USER.search(" ".join(words)):
            given = options(words)
            runs.setdefault(given.pop("config_file"), {}).update(given)
    for files, given in runs.items():  # the options of all runs with the same files at once, which takes a second
        assert check_config(DefaultParseValue(files), **{k: DefaultParseValue(v) for k, v in given.items()}) == []


def test_pages_and_sections_that_the_code_refers_to_are_there() -> None:
    for source in SOURCES:
        text = re.sub(r"\s*\n\s*#?\s*", " ", source.read_text(encoding="utf-8"))
        for name, title in re.findall(r"\bdocs/(\w+\.md)(?:\W{1,3}\"?([A-Z][\w ]+)[.\"?])?", text):
            if name in {"README.md", "data_license.txt"}:
                continue
            page = BUNDLE / "docs" / name
            assert page.is_file(), f"{source} refers to docs/{name}"
            assert not title or title.lower().replace(" ", "-") in anchors(page), f"{source}: docs/{name}, {title}"
