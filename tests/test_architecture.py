"""Which module may know which, and what the repository must not hold."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = REPOSITORY / "bipvl_bundle" / "scripts"
LARGEST = 10 * 2**20  # bytes
WORDS = {"concepts", "concept_checks", "concept_codes", "concept_sentences"}

# What each part of `scripts` may import from `scripts`, by the start of the module's name. A part that is not
# listed may import all but `cli`.
ALLOWED = {
    "whole_file": set(),
    "collapse_warning": set(),
    "concept_checks": set(),
    "concept_codes": {"concept_checks"},
    "concept_sentences": {"concept_checks"},
    "concept_files": {*WORDS, "whole_file"},
    "concepts": WORDS,
    "prompts": WORDS,
    "word_texts": WORDS,
    "chat": set(),
    "concept_writer": {*WORDS, "concept_files", "prompts", "chat"},
    "training_words": set(),
    "networks": {*WORDS, "networks"},
    "losses": {"losses", "networks.outputs"},
    "data": {*WORDS, "data", "whole_file"},
    "transforms": set(),
    "metrics": {"metrics", "whole_file"},
    "engines": {"networks.outputs", "data", "losses", "networks"},
    "checkpoints": {"networks.outputs", "data.seen_cases"},
    "config_lint": set(),
    "config_check": {"config_lint"},
    "experiments": {"experiments", "metrics", "config_check", "data.folds", "data.items", "whole_file"},
    "dataset_check": {"concept_checks", "config_check", "data", "metrics", "transforms", "whole_file"},
    "distributed": set(),
    "memory_advice": set(),
    "plots": set(),
}
WITHOUT_TORCH = (
    "concepts",
    "concept_checks",
    "concept_codes",
    "concept_sentences",
    "concept_files",
    "concept_writer",
    "prompts",
    "word_texts",
    "chat",
    "plots",
    "config_lint",
    "data.folds",
    "data.items",
    "data.seen_cases",
    "data.datalist",
    "data.file_matching",
    "data.survey",
    "data.own_data",
)


def imported(source: str) -> Iterator[tuple[str, bool]]:
    """The names of the modules that a source imports, and whether it does so within a function."""
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)]
    within = {id(inner) for function in functions for inner in ast.walk(function) if inner is not function}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "scripts.<relative>" if node.level else node.module or ""
            names = [base] if base != "scripts" else [f"scripts.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "__import__",
            "import_module",
        ):
            names = [str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)]
        yield from ((name, id(node) in within) for name in names)


def modules() -> dict[str, Path]:
    """Names without `scripts.`, such as `networks.outputs`."""
    paths = sorted(SCRIPTS.rglob("*.py"))
    names = [".".join(path.relative_to(SCRIPTS).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def of_scripts(path: Path) -> set[str]:
    names = {name for name, _ in imported(path.read_text(encoding="utf-8"))}
    return {name.removeprefix("scripts.") for name in names if name.split(".")[0] == "scripts"}


def belongs(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def repository_files() -> list[Path]:
    """What is or would be committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git repository: what belongs to it is unknown")
    return [path for name in done.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]


class TestScanner:
    @pytest.mark.parametrize(
        ("source", "found"),
        [
            ("import scripts.losses.total", [("scripts.losses.total", False)]),
            ("from scripts import concepts, cli", [("scripts.concepts", False), ("scripts.cli", False)]),
            ("from scripts.data.folds import Item", [("scripts.data.folds", False)]),
            ("from . import cli", [("scripts.<relative>", False)]),
            ("def f():\n    import scripts.cli", [("scripts.cli", True)]),
            ("class A:\n    async def f(self):\n        from torch import nn", [("torch", True)]),
            ("f = lambda: importlib.import_module('scripts.cli')", [("scripts.cli", True)]),
        ],
    )
    def test_finds_every_form_of_import(self, source: str, found: list[tuple[str, bool]]) -> None:
        assert list(imported(source)) == found


class TestDependencies:
    @pytest.mark.parametrize("name", modules())
    def test_direction(self, name: str) -> None:
        part = next((part for part in ALLOWED if belongs(name, part)), None)
        known = of_scripts(modules()[name])
        assert not {other for other in known if belongs(other, "cli")} or name == "cli"
        if part is not None:
            wrong = {other for other in known if not any(belongs(other, allowed) for allowed in ALLOWED[part])}
            assert not wrong

    @pytest.mark.parametrize("name", modules())
    def test_no_import_of_scripts_within_a_function(self, name: str) -> None:
        """MONAI Label drops `scripts*` between runs: a late import would bring a second copy of a class."""
        late = [n for n, inner in imported(modules()[name].read_text()) if inner and n.startswith("scripts")]
        assert not late

    @pytest.mark.parametrize("name", [name for name in WITHOUT_TORCH if name in modules()])
    def test_works_without_torch(self, name: str) -> None:
        names = {n.split(".")[0] for n, _ in imported(modules()[name].read_text())}
        assert not names & {"torch", "transformers"}

    def test_plots_know_nobody_and_are_known_by_the_cli_alone(self) -> None:
        knowing = {name for name, path in modules().items() if "plots" in of_scripts(path)}
        assert knowing <= {"cli"}

    def test_rules_are_about_parts_that_exist(self) -> None:
        parts = {name.split(".")[0] for name in modules()}
        assert set(ALLOWED) - {"plots"} <= parts


class TestRepository:
    def test_scripts_is_the_one_package(self) -> None:
        assert (SCRIPTS / "__init__.py").is_file()
        assert not (REPOSITORY / "bipvl_bundle/__init__.py").exists()
        assert not (REPOSITORY / "scripts").exists()

    def test_files_are_small(self) -> None:
        sizes = {path.relative_to(REPOSITORY).as_posix(): path.stat().st_size for path in repository_files()}
        del sizes["bipvl_bundle/models/model.pt"]  # whatever was trained last
        assert sizes.pop("bipvl_bundle/models/hippocampus/model.pt") < 25e6  # the Model Zoo's limit
        assert not {name: size for name, size in sizes.items() if size > LARGEST}

    def test_no_path_of_a_machine(self) -> None:
        pattern = re.compile(r"(?<![\w.~}$/-])/(home|root|Users|work|mnt|opt|scratch|media)/\w")
        found = []
        for path in repository_files():
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                continue
            if path != Path(__file__):
                found += [f"{path.relative_to(REPOSITORY)}: {line}" for line in lines if pattern.search(line)]
        assert not found
