from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.release.description import BUNDLE_ROOT, load_release

Describe = Callable[..., Path]


def test_reads_every_field(describe: Describe, content: dict[str, Any]) -> None:
    release = load_release(describe(overlays=["dataset_hippocampus.yaml"]))
    assert release.overlays == ("dataset_hippocampus.yaml",)
    assert release.options == content["options"]
    assert release.references == ("A. Author. A book.",)
    assert release.download_url is None


@pytest.mark.parametrize("path", sorted((BUNDLE_ROOT / "configs/releases").glob("*.yaml")), ids=lambda p: p.stem)
def test_those_of_the_project_are_valid(path: Path) -> None:
    release = load_release(path)
    assert all((BUNDLE_ROOT / "configs" / name).is_file() for name in release.overlays)
    assert release.weights is None or (BUNDLE_ROOT / release.weights).is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wieghts": "x"}, "has an unknown key 'wieghts'; did you mean 'weights'"),
        ({"title": None, "limits": ""}, "lacks title, limits"),
        ({"version": 0.1}, "version is 0.1; expected text, in quotes"),
        ({"version": "2.0.0"}, r"version 2\.0\.0 has no line in the changelog, which has 1"),
        ({"name": "BiPVL Mine"}, "name is 'BiPVL Mine'; expected small letters"),
        ({"overlays": "dataset_hippocampus.yaml"}, "overlays is 'dataset_hippocampus.yaml'; expected a list"),
        ({"options": ["a"]}, "options is .*; expected a mapping"),
        ({"options": {"max_epochs": "$print(1)"}}, r"'options': 'max_epochs' begins with '\$'"),
        ({"options": {"inferer": {"_target_": "os.getcwd"}}}, r"'options': 'inferer' has the key '_target_'"),
        ({"options": {"inferer#_target_": "os.getcwd"}}, r"'options' has the key 'inferer#_target_'"),
        ({"options": {"roi_size": [32, "@spacing"]}}, r"'roi_size', entry 1 begins with '@'"),
        ({"title": "%/etc/passwd"}, r"'title' begins with '%'"),
        ({"references": ["$x"]}, r"'references', entry 0 begins with '\$'"),
        ({"changelog": {"1.2.0": "$x"}}, r"'changelog': '1\.2\.0' begins with '\$'"),
    ],
)
def test_malformed(describe: Describe, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_release(describe(**changes))


def test_absent_or_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no description of a release .*nowhere\.yaml"):
        load_release(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ValueError, match="holds a list"):
        load_release(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="no valid YAML"):
        load_release(tmp_path / "broken.yaml")
    (tmp_path / "twice.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(ValueError, match="key 'name' given twice"):
        load_release(tmp_path / "twice.yaml")
