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

# The floors of `scripts`, top to bottom: a room imports from itself and from the floors below its own.
FLOORS: tuple[set[str], ...] = (
    {"cli"},
    {"release", "export", "app"},
    {"experiments", "training", "inference", "benchmark"},
    {"report"},
    {"losses", "data", "dicom"},
    {"networks", "metrics"},
    {"words", "configuration", "geometry"},
    {"messages", "trust", "whole_file"},
)
# Modules that know less than their floor allows.
ONLY: dict[str, set[str]] = {
    "losses": {"losses", "networks.outputs"},
    "networks": {"networks", "words", "messages", "trust", "whole_file"},
    "metrics": {"metrics", "geometry", "messages", "whole_file"},
    "words": {"words", "messages", "trust", "whole_file"},
    "configuration": {"configuration", "messages", "trust"},
    "geometry": {"geometry"},
    "messages": {"messages"},
    "trust": {"trust"},
}
TOP_MODULES = {"cli", "whole_file"}
WITHOUT_TORCH = (
    "messages",
    "trust",
    "words",
    "geometry",
    "configuration.lint",
    "report.pictures",
    "data.splits",
    "data.cases",
    "data.label_names",
    "data.datalist",
    "data.own",
)
WITH_TORCH = ("words.encoder_maker", "words.encoder_pretraining")


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
            names = [beginning(a) for a in node.args[:1]]
        yield from ((name, id(node) in within) for name in names)


def beginning(name: ast.expr) -> str:
    """What can be told of a name that is passed on: all of a text, the beginning of an f-string."""
    first = name.values[0] if isinstance(name, ast.JoinedStr) and name.values else name
    return str(first.value) if isinstance(first, ast.Constant) else ""


def modules() -> dict[str, Path]:
    """Names without `scripts.`, such as `networks.outputs`."""
    paths = sorted(SCRIPTS.rglob("*.py"))
    names = [".".join(path.relative_to(SCRIPTS).with_suffix("").parts) for path in paths]
    found = {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}
    del found["__init__"]  # of `scripts` itself
    return found


def of_scripts(path: Path) -> set[str]:
    names = {name for name, _ in imported(path.read_text(encoding="utf-8"))}
    return {name.removeprefix("scripts.") for name in names if name.split(".")[0] == "scripts"} - {""}


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
            ("from scripts.data.splits import Item", [("scripts.data.splits", False)]),
            ("from . import cli", [("scripts.<relative>", False)]),
            ("def f():\n    import scripts.cli", [("scripts.cli", True)]),
            ("class A:\n    async def f(self):\n        from torch import nn", [("torch", True)]),
            ("f = lambda: importlib.import_module('scripts.cli')", [("scripts.cli", True)]),
            ("def f(x):\n    importlib.import_module(f'scripts.{x}')", [("scripts.", True)]),
            ("importlib.import_module(x)", [("", False)]),
        ],
    )
    def test_finds_every_form_of_import(self, source: str, found: list[tuple[str, bool]]) -> None:
        assert list(imported(source)) == found


class TestFloors:
    @pytest.mark.parametrize("name", modules())
    def test_imports_from_its_own_room_and_from_below(self, name: str) -> None:
        room = name.split(".")[0]
        floor = next((n for n, rooms in enumerate(FLOORS) if room in rooms), None)
        assert floor is not None, f"{room} has no floor: give it one in FLOORS"
        below = {room} | set().union(*FLOORS[floor + 1 :])
        known = of_scripts(modules()[name])
        assert not {other for other in known if not any(belongs(other, allowed) for allowed in below)}
        if room in ONLY:
            assert not {other for other in known if not any(belongs(other, allowed) for allowed in ONLY[room])}

    def test_no_two_modules_import_each_other(self) -> None:
        knows = {name: of_scripts(path) & set(modules()) for name, path in modules().items()}
        mutual = {frozenset((a, b)) for a in knows for b in knows[a] if a in knows[b] and a != b and not belongs(b, a)}
        assert not mutual

    def test_nothing_loose_at_the_top(self) -> None:
        assert {path.stem for path in SCRIPTS.glob("*.py")} == {*TOP_MODULES, "__init__"}

    def test_every_room_of_the_floors_exists(self) -> None:
        assert set().union(*FLOORS) == {name.split(".")[0] for name in modules()}

    @pytest.mark.parametrize("name", modules())
    def test_no_import_of_scripts_within_a_function(self, name: str) -> None:
        """MONAI Label drops `scripts*` between runs: a late import would bring a second copy of a class. It does not
        load `cli`, whose commands are imported when they are called."""
        late = [n for n, inner in imported(modules()[name].read_text()) if inner and n.startswith("scripts")]
        assert late == (["scripts."] if name == "cli" else [])

    @pytest.mark.parametrize("name", [n for n in modules() if any(belongs(n, part) for part in WITHOUT_TORCH)])
    def test_works_without_torch(self, name: str) -> None:
        if name in WITH_TORCH:
            pytest.skip("makes and trains an encoder, which needs torch")
        names = {n.split(".")[0] for n, _ in imported(modules()[name].read_text())}
        assert not names & {"torch", "transformers"}


class TestRepository:
    def test_scripts_is_the_one_package(self) -> None:
        assert (SCRIPTS / "__init__.py").is_file()
        assert not (REPOSITORY / "bipvl_bundle/__init__.py").exists()
        assert not (REPOSITORY / "scripts").exists()

    def test_files_are_small(self) -> None:
        sizes = {path.relative_to(REPOSITORY).as_posix(): path.stat().st_size for path in repository_files()}
        del sizes["bipvl_bundle/models/model.pt"]  # whatever was trained last
        for name in ("hippocampus", "brain_structures"):
            assert sizes.pop(f"bipvl_bundle/models/{name}/model.pt") < 25e6  # the Model Zoo's limit
        assert not {name: size for name, size in sizes.items() if size > LARGEST}

    def test_no_path_of_a_machine(self) -> None:
        pattern = re.compile(r"(?<![\w.~}$/-])/(home|root|Users|work|mnt|opt|scratch|media)/\w")
        found = []
        for path in repository_files():
            if path.name == "niivue.umd.js":  # of others, unchanged
                continue
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                continue
            if path != Path(__file__):
                found += [f"{path.relative_to(REPOSITORY)}: {line}" for line in lines if pattern.search(line)]
        assert not found
