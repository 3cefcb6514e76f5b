from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
from monai.bundle import ConfigWorkflow

from scripts.configuration import check as config_check
from scripts.configuration.check import check, check_config, check_run, config_sets

BUNDLE = Path(config_check.__file__).parents[2]

TRAIN = """
imports: ["$import sys"]
bundle_root: .
max_epochs: 5
roi_size: [64, 64, 64]
window: {low: -175, high: 250}
network_def: {_target_: torch.nn.Linear, in_features: 1, out_features: 2}
optimizer: {_target_: torch.optim.SGD, params: "$@network_def.parameters()", lr: 0.1}
handlers:
  - {_target_: StatsHandler, iteration_log: false}
train:
  dataset: {_target_: Dataset, data: []}
  trainer: {max_epochs: "@max_epochs"}
labels: {}
initialize:
  - "$sys.path.insert(0, str(@bundle_root))"
  - {_target_: scripts.configuration.check.check_run, entry: train.yaml}
training: ["$print('trained for', @train#trainer#max_epochs, 'epochs')"]
run: "%training"
"""
INFERENCE = """
bundle_root: .
sw_overlap: 0.25
roi_size: "@sw_overlap"
"""

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file into `configs` of a bundle that has train.yaml and inference.yaml; its path."""
    folder = tmp_path / "bundle" / "configs"
    folder.mkdir(parents=True)

    def to_configs(name: str, text: str) -> str:
        (folder / name).write_text(textwrap.dedent(text))
        return str(folder / name)

    to_configs("train.yaml", TRAIN)
    to_configs("inference.yaml", INFERENCE)
    return to_configs


@pytest.fixture
def base(write: Write) -> str:
    return write("train.yaml", TRAIN)


def only(problems: list[str]) -> str:
    assert len(problems) == 1, problems
    return problems[0]


class TestKeys:
    def test_sound_base_has_no_problem(self, base: str) -> None:
        assert check_config(base) == []

    @pytest.mark.parametrize(
        "overlay",
        [
            "max_epochs: 7",
            "train#trainer#max_epochs: 7",
            "train::trainer::max_epochs: 7",
            "sw_overlap: 0.5",  # known to inference.yaml
            "+handlers: [{_target_: StatsHandler}]",
            "+window: {unit: HU}",
            "handlers#0#name: a",  # an argument that the base leaves at its default
            "roi_size#1: 32",
            "window: {low: 0, high: 1}",
            "labels: {liver: 1}",  # an empty mapping is open
            "network_def: {_target_: torch.nn.Conv3d, in_channels: 1, out_channels: 1, kernel_size: 1}",
            "extra: 3\nroi_size: ['@extra', 1, 1]",  # read by something
            "extra: 3\nroi_size: '%extra'",
            "more_imports: [$import json]",
        ],
    )
    def test_known_free_and_used_keys_pass(self, base: str, write: Write, overlay: str) -> None:
        assert check_config([base, write("overlay.yaml", overlay)]) == []

    def test_names_with_a_description_each_are_the_users_own(self, base: str, write: Write) -> None:
        first = write("first.yaml", "data_sets: {liver_ct: {overlays: [a]}}\nroi_size: ['$len(@data_sets)', 1, 1]")
        assert check_config([base, first, write("second.yaml", "data_sets: {mine: {labels: [b]}}")]) == []
        assert check_config([base, first], data_sets={"liver_ct": {"part": [0, 2]}}) == []

    @pytest.mark.parametrize(
        ("overlay", "key", "near"),
        [
            ("max_epocs: 7", "max_epocs", "max_epochs"),
            ("sw_overlaps: 7", "sw_overlaps", "sw_overlap"),
            ("train#trainer#max_epoch: 7", "train#trainer#max_epoch", "train#trainer#max_epochs"),
            ("train::trainer::max_epoch: 7", "train#trainer#max_epoch", "train#trainer#max_epochs"),
            ("window: {low: 0, hgh: 1}", "window#hgh", "window#high"),
            ("window#lo: 0", "window#lo", "window#low"),
        ],
    )
    def test_unknown_key_names_file_key_and_nearest(
        self, base: str, write: Write, overlay: str, key: str, near: str
    ) -> None:
        path = write("overlay.yaml", overlay)
        problem = only(check_config([base, path]))
        assert problem.startswith(f"{path}: unknown key '{key}'")
        assert problem.endswith(f"the nearest known key is '{near}'")

    def test_unknown_option_is_of_the_command_line(self, base: str) -> None:
        options: dict[str, Any] = {"train#trainer#max_epoch": 3}
        problem = only(check_config(base, **options))
        assert problem.startswith("the command line: unknown key 'train#trainer#max_epoch'")

    def test_a_path_that_monai_cannot_set_is_reported(self, base: str, write: Write) -> None:
        path = write("overlay.yaml", "trian#trainer#max_epochs: 3")
        problem = only(check_config([base, path]))
        assert "'trian#trainer#max_epochs' has no place in the base" in problem
        assert problem.endswith("'train#trainer#max_epochs'")

    def test_losing_the_target_is_reported(self, base: str, write: Write) -> None:
        path = write("overlay.yaml", "optimizer: {lr: 0.2}")
        problem = only(check_config([base, path]))
        assert "'optimizer' replaces a component" in problem
        assert problem.endswith("write 'optimizer#lr'")

    def test_keys_of_an_earlier_overlay_are_known(self, base: str, write: Write) -> None:
        first = write("a.yaml", "extra: 3\nroi_size: ['@extra', 1, 1]")
        assert check_config([base, first, write("b.yaml", "extra: 4")]) == []

    def test_no_sibling_for_other_names(self, write: Write) -> None:
        other = write("mine.yaml", "max_epochs: 1")
        assert "'sw_overlap'" in only(check_config(other, sw_overlap=1))

    def test_missing_file_raises(self, base: str) -> None:
        with pytest.raises(FileNotFoundError, match=r"cannot find the config file .*absent\.yaml"):
            check_config([base, base.replace("train", "absent")])

    @pytest.mark.parametrize(
        ("overlay", "message"),
        [
            ("", r"overlay\.yaml' holds nothing; expected a mapping .*an overlay is never empty"),
            ("# only a comment", r"overlay\.yaml' holds nothing"),
            ("- max_epochs: 3", r"overlay\.yaml' holds a list; expected a mapping"),
            ("max_epochs", r"overlay\.yaml' holds a str; expected a mapping"),
            ("max_epochs: 3\nmax_epochs: 4", r"(?s)overlay\.yaml' is no valid YAML: key 'max_epochs' given twice"),
            ("window: {low: 1, low: 2}", r"(?s)overlay\.yaml' is no valid YAML: key 'low' given twice"),
        ],
    )
    def test_a_file_that_is_no_overlay_is_refused_by_name(
        self, base: str, write: Write, overlay: str, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            check_config([base, write("overlay.yaml", overlay)])

    def test_a_key_given_twice_in_json_is_refused(self, base: str, write: Write) -> None:
        with pytest.raises(ValueError, match=r"overlay\.json' is no valid JSON: key 'max_epochs' given twice"):
            check_config([base, write("overlay.json", '{"max_epochs": 3, "max_epochs": 4}')])

    @pytest.mark.parametrize("name", ["../../X", "/X", "a/b", "", ".", "a\\nb"])
    def test_a_name_that_leads_elsewhere_is_reported(self, base: str, write: Write, name: str) -> None:
        known = write("train.yaml", TRAIN + "dataset_name: mine\n")
        problem = only(check_config([known, write("overlay.yaml", f'dataset_name: "{name}"')]))
        assert "overlay.yaml: dataset_name" in problem


class TestLint:
    @pytest.mark.parametrize(
        ("overlay", "message"),
        [
            ("optimizer#learn_rate: 1", "torch.optim.SGD takes no argument 'learn_rate'; the nearest is "),
            ("optimizer: {_target_: torch.optim.SGD, lr: 1}", "missing a required argument: 'params'"),
            ("optimizer#_target_: torch.optim.Sgd", "there is no torch.optim.Sgd"),
            ("optimizer#_target_: absent_package.Sgd", "there is no absent_package.Sgd"),
            (
                "optimizer#params: '@network_dfe'",
                "no 'network_dfe' to refer to by @; the nearest is 'network_def'",
            ),
            ("max_epochs: '$@train#trainer#epochs + 1'", "there is no 'train#trainer#epochs'"),
            ("max_epochs: '%absent#key'", "a macro (%) or a relative id cannot be resolved"),
        ],
    )
    def test_problem_is_reported_with_its_file(self, base: str, write: Write, overlay: str, message: str) -> None:
        path = write("overlay.yaml", overlay)
        problem = only(check_config([base, path]))
        assert message in problem
        assert message.startswith("a macro") or problem.startswith(f"{path}: ")

    def test_problem_of_the_base_is_reported_with_the_base(self, write: Write) -> None:
        mine = write("mine.yaml", "a: '@b'")
        assert only(check_config([mine, write("b.yaml", "more_imports: [$import json]")])).startswith(
            f"{mine}: a: there is no 'b'"
        )

    def test_import_error_is_reported(self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "broken_module.py").write_text("raise OSError('no library')")
        monkeypatch.syspath_prepend(tmp_path)
        problem = only(check_config(write("mine.yaml", "a: {_target_: broken_module.A}")))
        assert "importing broken_module.A fails: " in problem

    @pytest.mark.parametrize(
        "config",
        [
            "a: {_target_: torch.optim.SGD, _mode_: callable, lr: 1}",  # to be completed later
            "a: {_target_: absent.Thing, _disabled_: true}",
            "a: {_target_: torch.device, type: cpu}",  # tells no signature
            "a: {_target_: '$@b', x: 1}\nb: 2",
            "a: {b: '@##c', d: '@#b'}\nc: 1",
        ],
    )
    def test_what_cannot_be_judged_passes(self, write: Write, config: str) -> None:
        assert check_config(write("mine.yaml", config)) == []

    def test_metadata_can_be_referred_to(self, write: Write) -> None:
        mine = write("mine.yaml", "version: '@_meta_#version'")
        assert "'_meta_#version'" in only(check_config(mine))
        write("metadata.json", '{"version": "1"}')
        assert check_config(mine) == []
        assert check_config(mine, meta_file=write("other.json", '{"version": "1"}')) == []


class TestCheck:
    def test_prints_and_leaves_with_1(self, base: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as left:
            check(base, max_epocs=3)
        assert left.value.code == 1
        assert "unknown key 'max_epocs'" in capsys.readouterr().out

    def test_ends_quietly_if_all_is_well(self, base: str, capsys: pytest.CaptureFixture[str]) -> None:
        check(base)
        assert capsys.readouterr().out == f"{base}: no problem(s)\n"

    @pytest.mark.parametrize(
        ("option", "text", "message"), [("resume", "false", "write False"), ("seed", "null", "overlay")]
    )
    def test_text_for_a_switch_or_number(self, option: str, text: str, message: str) -> None:
        (problem,) = check_config(str(BUNDLE / "configs/train.yaml"), **{option: text})
        assert f"the command line: '{option}' is the text '{text}'" in problem
        assert message in problem
        assert check_config(str(BUNDLE / "configs/train.yaml"), **{option: False}) == []

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("learning_rate", "1e-4", "is the text '1e-4'; expected a number, which YAML reads with a point"),
            ("max_epochs", "many", "is the text 'many'; expected a number"),
            ("output_dir", 202411, "is the number 202411; a name of digits is written in two pairs of quotes"),
            ("text_encoder", 1.5, "is the number 1.5; a name of digits"),
        ],
    )
    def test_text_for_a_number_and_a_number_for_a_name(self, key: str, value: Any, message: str) -> None:
        (problem,) = check_config(str(BUNDLE / "configs/train.yaml"), **{key: value})
        assert f"'{key}' {message}" in problem


class TestCheckRun:
    def run(self, config_file: str | list[str], **options: Any) -> None:
        monai.bundle.run("training", config_file=config_file, logging_file=False, **options)  # type: ignore[arg-type]

    def test_sound_run_goes_on(self, base: str, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
        overlay = write("overlay.yaml", "extra: 9\nmax_epochs: '@extra'\nsw_overlap: 0.5\nmine: [$import json]")
        self.run([base, overlay])
        assert "trained for 9 epochs" in capsys.readouterr().out

    def test_the_run_id_may_be_new(self, base: str, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
        overlay = write("overlay.yaml", "evaluating: ['$print(\"evaluated\")']")
        monai.bundle.run("evaluating", config_file=[base, overlay], logging_file=False)  # type: ignore[arg-type]
        assert "evaluated" in capsys.readouterr().out

    def test_tracking_settings_pass(self, base: str) -> None:
        self.run(base, experiment_name="mine", run_name="first")

    @pytest.mark.parametrize(
        ("key", "near"),
        [("max_epocs", "max_epochs"), ("train#trainer#max_epoch", "train#trainer#max_epochs")],
    )
    @pytest.mark.parametrize("way", ["overlay", "option", "args_file", "workflow"])
    def test_unknown_key_stops_the_run(self, base: str, write: Write, way: str, key: str, near: str) -> None:
        options: dict[str, Any] = {key: 3}
        ways: dict[str, Callable[[], Any]] = {
            "overlay": lambda: self.run([base, write("overlay.yaml", f"{key}: 3")]),
            "option": lambda: self.run(base, **options),
            "args_file": lambda: self.run(base, args_file=write("args.yaml", f"{key}: 3")),
            "workflow": lambda: ConfigWorkflow(base, logging_file=False, **options).initialize(),
        }
        with pytest.raises(RuntimeError, match="check_run") as raised:
            ways[way]()
        assert isinstance(raised.value.__cause__, ValueError)
        assert f"unknown key '{key}' (nearest: '{near}')" in str(raised.value.__cause__)

    def test_text_for_a_number_stops_the_run(self, base: str) -> None:
        with pytest.raises(RuntimeError, match="check_run") as raised:
            self.run(base, max_epochs="null")
        assert "'max_epochs' is the text 'null'" in str(raised.value.__cause__)

    @pytest.mark.filterwarnings("ignore:Duplicate key")  # monai's, which goes on
    def test_a_key_given_twice_stops_the_run(self, base: str, write: Write) -> None:
        with pytest.raises(RuntimeError, match="check_run") as raised:
            self.run([base, write("overlay.yaml", "max_epochs: 3\nmax_epochs: 4")])
        assert "key 'max_epochs' given twice" in str(raised.value.__cause__)

    def test_a_name_that_leads_elsewhere_stops_the_run(self, base: str, write: Write) -> None:
        known = write("train.yaml", TRAIN + "dataset_name: mine\n")
        with pytest.raises(RuntimeError, match="check_run") as raised:
            self.run(known, dataset_name="../../X")
        assert "dataset_name becomes the name of a file or a folder" in str(raised.value.__cause__)

    def test_keys_of_an_overlay_are_among_the_nearest(self, base: str, write: Write) -> None:
        overlay = write("overlay.yaml", "extra_steps: 9\nmax_epochs: '@extra_steps'")
        with pytest.raises(RuntimeError, match="check_run") as raised:
            self.run([base, overlay], extra_step=3)
        assert "'extra_step' (nearest: 'extra_steps')" in str(raised.value.__cause__)

    def test_without_the_entry_file_it_only_warns(
        self, base: str, write: Write, caplog: pytest.LogCaptureFixture
    ) -> None:
        mine = write("mine.yaml", TRAIN.replace("entry: train.yaml", "entry: absent.yaml"))
        self.run(mine, max_epocs=3)
        assert "there is no" in caplog.text

    def test_outside_a_workflow_it_does_nothing(self) -> None:
        check_run("train.yaml")

    @pytest.mark.slow
    @pytest.mark.parametrize(("options", "code"), [([], 0), (["--max_epocs", "3"], 1)])
    def test_from_a_foreign_folder(
        self, base: str, tmp_path: Path, options: list[str], code: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
        command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", base]
        command += ["--bundle_root", str(BUNDLE), *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert ("ValueError: unknown key 'max_epocs' (nearest: 'max_epochs')" in done.stderr) is bool(code)


class TestConfigSets:
    def test_every_overlay_alone_on_its_base(self, write: Write) -> None:
        folder = Path(write("dataset_x.yaml", "max_epochs: 1")).parent
        write("evaluate.yaml", "max_epochs: 1")
        names = [[Path(path).name for path in files] for files in config_sets(folder)]
        assert names == [
            ["train.yaml"],
            ["inference.yaml"],
            ["train.yaml", "dataset_x.yaml"],
            ["inference.yaml", "dataset_x.yaml"],
            ["train.yaml", "evaluate.yaml"],
        ]

    def test_ablation_of_what_only_training_has_is_left_out_of_inference(self, write: Write) -> None:
        folder = Path(write("ablation_a.yaml", "sw_overlap: 0.5\nmax_epochs: 1")).parent
        write("ablation_b.yaml", "sw_overlap: 0.5\noptimizer#lr: 0.2")
        names = [tuple(Path(path).name for path in files) for files in config_sets(folder)]
        assert ("inference.yaml", "ablation_a.yaml") in names
        assert ("train.yaml", "ablation_b.yaml") in names
        assert ("inference.yaml", "ablation_b.yaml") not in names
