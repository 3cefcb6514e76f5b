from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.configuration.check import check_config
from scripts.experiments.description import BUNDLE_ROOT, ExperimentSet, load_set, parse_set
from scripts.experiments.plan import plan_runs

READY = sorted((BUNDLE_ROOT / "configs/experiments").glob("*_*.yaml"))
READY = [path for path in READY if "output" in yaml.safe_load(path.read_text())]
SMALL = {"output": "x", "experiments": {"full": []}}


def given(**fields: Any) -> ExperimentSet:
    return parse_set({**SMALL, **fields}, "the test")


class TestFile:
    def test_short_and_long_entries(self, tmp_path: Path) -> None:
        path = tmp_path / "set.yaml"
        path.write_text(
            "output: out\nfolds: [0, 2]\nexperiments:\n  full:\n  plain: [a.yaml, b/c.yaml]\n"
            "  swapped: {evaluates: full, title: Swapped, overlays: d.yaml, options: {x#y: 1}}\n"
        )
        described = load_set(path)
        full, plain, swapped = described.experiments
        assert (full.name, full.title, full.overlays, full.evaluates) == ("full", "full", (), None)
        assert plain.overlays == ("a.yaml", "b/c.yaml")
        assert (swapped.title, swapped.evaluates, swapped.options) == ("Swapped", "full", {"x#y": 1})
        assert described.output == Path.cwd() / "out"
        assert (described.folds, described.seeds, described.base) == ((0, 2), (0,), ("train.yaml",))

    def test_arguments_win_and_options_are_merged(self, tmp_path: Path) -> None:
        path = tmp_path / "set.yaml"
        path.write_text(yaml.safe_dump({**SMALL, "folds": [0, 1], "jobs": 2, "options": {"a": 1, "b": 1}}))
        described = load_set(path, folds=2, jobs=None, options={"b": 2})
        assert (described.folds, described.jobs, described.options) == ((2,), 2, {"a": 1, "b": 2})

    def test_includes_are_below_the_file_that_names_them(self, tmp_path: Path) -> None:
        (tmp_path / "rows.yaml").write_text("experiments: {full: [], plain: [a.yaml]}\nreference: full\n")
        (tmp_path / "data.yaml").write_text("base: [train.yaml, d.yaml]\noptions: {a: 1}\nfolds: [0, 1]\n")
        (tmp_path / "set.yaml").write_text(
            "includes: [rows.yaml, data.yaml]\noutput: out\nfolds: [0]\n"
            "options: {b: 2}\nexperiments: {plain: [c.yaml]}\n"
        )
        described = load_set(tmp_path / "set.yaml")
        assert [(e.name, e.overlays) for e in described.experiments] == [("full", ()), ("plain", ("c.yaml",))]
        assert (described.folds, described.options, described.reference) == ((0,), {"a": 1, "b": 2}, "full")
        assert described.base == ("train.yaml", "d.yaml")

    def test_including_in_a_circle_raises(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("includes: b.yaml\n")
        (tmp_path / "b.yaml").write_text("includes: [a.yaml]\n")
        with pytest.raises(ValueError, match=r"b\.yaml' includes 'a\.yaml', which includes it"):
            load_set(tmp_path / "a.yaml")

    def test_absent_file_raises(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no set of experiments '.*absent\.yaml'"):
            load_set(tmp_path / "absent.yaml")

    @pytest.mark.parametrize(
        ("text", "match"), [("a: [", "no valid YAML"), ("- a", "holds a list; expected a mapping")]
    )
    def test_no_description_raises(self, tmp_path: Path, text: str, match: str) -> None:
        (tmp_path / "set.yaml").write_text(text)
        with pytest.raises(ValueError, match=rf"set\.yaml'.*{match}"):
            load_set(tmp_path / "set.yaml")


class TestErrors:
    @pytest.mark.parametrize(
        ("fields", "match"),
        [
            ({"fold": [0]}, "the test has an unknown key 'fold'; did you mean 'folds'"),
            ({"output": None}, "'output' is missing"),
            ({"experiments": {}}, "'experiments' is missing"),
            ({"experiments": ["full"]}, "'experiments' is a list; expected a mapping"),
            ({"experiments": {"a b": []}}, "experiment 'a b': expected a name of letters"),
            ({"experiments": {"../up": []}}, "expected a name of letters"),
            (
                {"experiments": {"full": {"overlay": []}}},
                "'full' has an unknown key 'overlay'; did you mean",
            ),
            ({"experiments": {"full": [1]}}, r"'overlays' is \[1\]; expected a list of config files"),
            ({"experiments": {"full": [], "Full": []}}, "two experiments would share the folder 'full'"),
            ({"experiments": {"x": {"evaluates": "full"}}}, "it evaluates 'full'; expected an experiment of this set"),
            (
                {"experiments": {"a": [], "b": {"evaluates": "a"}, "c": {"evaluates": "b"}}},
                "'c': it evaluates 'b'; expected an experiment of this set that trains: a",
            ),
            ({"reference": "best"}, "the reference 'best' is none of full"),
            ({"evaluate_on": "train"}, "evaluate_on is 'train'; expected one of validation, test"),
            ({"folds": []}, r"'folds' is \[\]; expected different whole numbers"),
            ({"folds": [0, 0]}, r"'folds' is \[0, 0\]"),
            ({"folds": [-1]}, r"'folds' is \[-1\]"),
            ({"seeds": [True]}, r"'seeds' is \[True\]"),
            ({"seeds": "all"}, "'seeds' is 'all'"),
            ({"jobs": 0}, "jobs is 0; expected a whole number from 1"),
            ({"threads": 1.5}, "threads is 1.5"),
            ({"options": [1]}, r"'options' is \[1\]; expected a mapping from config ids to values"),
            ({"options": {"fold": 1}}, "'options' sets 'fold', which the set gives to each run"),
            ({"evaluation": {"ckpt_path": "x"}}, "'evaluation' sets 'ckpt_path'"),
            ({"experiments": {"full": {"options": {"output_dir": "x"}}}}, "'full': 'options' sets 'output_dir'"),
        ],
    )
    def test_names_what_is_wrong(self, fields: dict[str, Any], match: str) -> None:
        with pytest.raises(ValueError, match=match):
            given(**fields)


class TestReadySets:
    """The sets of `configs/experiments` that can be run as they are."""

    @pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
    def test_is_a_set_of_files_that_exist(self, path: Path) -> None:
        described = load_set(path)
        assert described.output.name == path.stem
        files = {file for run in plan_runs(described) for file in run.steps[-1].files}
        assert not {file.name for file in files if not file.is_file()}

    @pytest.mark.slow
    @pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
    def test_every_config_set_is_sound(self, path: Path) -> None:
        for run in {run.experiment.name: run for run in plan_runs(load_set(path))}.values():
            step = run.steps[-1]
            assert check_config([str(file) for file in step.files], **step.options) == [], run

    def test_they_are_all_there(self) -> None:
        assert {"table3_phantom", "table3_hippocampus", "table3_brain_structures", "table5_amos22", "head_phantom"} <= {
            path.stem for path in READY
        }
        assert {path.stem.split("_")[0] for path in READY} == {
            "table1",
            "table2",
            "table3",
            "table5",
            "open",
            "head",
            "losses",
        }
