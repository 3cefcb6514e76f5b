"""The rules for the options of a request, as start.sh puts them together, without the server."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = "$__import__('os').system('touch executed')"
MODEL = {
    "device": ["cpu"],
    "model_filename": ["model.pt", "model_1.pt"],
    "words of liver": "shape: A wedge.",
    "sharp": True,
    "passes": 3,
    "overlap": 0.5,
}
TRAINER = {"max_epochs": 50, "val_split": 0.2, "pretrained": True, "multi_gpu": True, "gpus": "all", "run_id": ""}
TRAINER |= {"tracking": ["None", "mlflow"], "tracking_uri": "", "tracking_experiment_name": "", "device": ["cpu"]}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("app")
    shutil.copytree(REPOSITORY / "monailabel/app/guard", folder / "guard")
    shutil.copy(REPOSITORY / "bipvl_bundle/scripts/trust/plain.py", folder / "guard")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("guard.options")
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == "guard"]:
        del sys.modules[name]


def rules_of(options: Any, kind: str) -> dict[str, Any]:
    return {
        "inference": lambda: options.inference(MODEL, ["cpu"]),
        "batch": lambda: options.batch(MODEL, ["cpu"], ["case_0", "case_1"]),
        "training": lambda: options.training(TRAINER, ["cpu"]),
        "scoring": lambda: options.scoring(["cpu"]),
        "next_sample": lambda: options.next_sample({}),
    }[kind]()


@pytest.mark.parametrize("kind", ["inference", "batch", "training", "scoring", "next_sample"])
@pytest.mark.parametrize(
    "value",
    [
        CODE,
        f"  {CODE}",
        "@network",
        "%/etc/passwd",
        [CODE],
        ["cpu", CODE],
        {"a": [CODE]},
        {CODE: 1},
        {"_target_": "os.system", "command": "touch executed"},
        [{"a": {"_target_": "os.getcwd"}}],
    ],
    ids=str,
)
def test_code_is_refused_in_every_option_by_its_name(options: Any, kind: str, value: Any) -> None:
    rules = rules_of(options, kind)
    assert rules
    for name in [*rules, "unlisted"]:
        with pytest.raises(ValueError, match=f"'{name}'"):
            options.check({name: value}, rules, "The model 'm'")
    with pytest.raises(ValueError, match="The request, key"):
        options.check({CODE: 1}, rules, "The model 'm'")


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (
            "inference",
            {"model_filename": "modle.pt"},
            r"'model_filename' is modle\.pt; expected one of 'model\.pt', 'mo",
        ),
        ("inference", {"model_filename": "../model.pt"}, "'model_filename' is"),
        ("inference", {"device": "cude"}, "'device' is cude; expected one of 'cpu'"),
        ("inference", {"device": "cuda"}, "'device' is cuda; expected one of 'cpu'"),
        ("inference", {"device": ["cpu", "cuda"]}, "'device' is"),
        ("inference", {"device": []}, "'device' is"),
        ("inference", {"devise": "cpu"}, "no option 'devise'; did you mean 'device'"),
        ("inference", {"image": "/etc/passwd"}, "no option 'image'"),
        ("inference", {"model": "other"}, "no option 'model'"),
        ("inference", {"image_path": "x"}, "no option 'image_path'"),
        ("inference", {"words of liver": 3}, "'words of liver' must be text"),
        ("inference", {"words of liver": "a\u200bb"}, r"'words of liver' has the invisible character U\+200B"),
        ("inference", {"sharp": "false"}, "'sharp' is false; expected true or false"),
        ("inference", {"passes": 3.5}, "'passes' is 3.5; expected a whole number"),
        ("inference", {"overlap": float("nan")}, "'overlap' is nan; expected a number"),
        ("inference", {"result_extension": "/../../x.nii"}, "'result_extension' is"),
        ("inference", {"result_dtype": "object"}, "'result_dtype' is object"),
        ("inference", {"label_tag": "../../x"}, "'label_tag' becomes the name of a file"),
        ("batch", {"label_tag": "final"}, "'label_tag' is 'final', which labels have that somebody has submitted"),
        ("inference", {"logging": "LOUD"}, "'logging' is LOUD"),
        ("batch", {"images": ["case_0", "/etc/passwd"]}, "'images' names /etc/passwd, which is none of the 2 images"),
        ("batch", {"images": "some"}, "'images' is some"),
        ("batch", {"max_workers": -1}, "'max_workers' is -1"),
        ("training", {"max_epochs": "5"}, "'max_epochs' is 5; expected a whole number from 1"),
        ("training", {"max_epochs": 0}, "'max_epochs' is 0"),
        ("training", {"max_epochs": True}, "'max_epochs' is True"),
        ("training", {"val_split": 1.0}, "'val_split' is 1.0; expected a share"),
        ("training", {"pretrained": False}, "'pretrained' is False; expected one of True"),
        ("training", {"run_id": "initialize"}, "'run_id' is initialize; expected one of"),
        ("training", {"gpus": "0,x"}, "'gpus' is 0,x"),
        ("training", {"tracking": "settings.json"}, "'tracking' is"),
        ("training", {"tracking_uri": "http://elsewhere"}, "'tracking_uri' is"),
        ("training", {"tracking_experiment_name": "../x"}, "'tracking_experiment_name' becomes the name"),
        ("training", {"train#trainer#max_epochs": 3}, "no option 'train#trainer#max_epochs'"),
        ("scoring", {"simulation_size": 10**9}, "'simulation_size' is"),
        ("scoring", {"method": "other"}, "no option 'method'"),
        ("next_sample", {"strategy": "other"}, "no option 'strategy'"),
    ],
)
def test_what_is_not_listed_is_refused(options: Any, kind: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options.check(given, rules_of(options, kind), "The model 'm'")


@pytest.mark.parametrize("given", [[], "x", 3, [["device", "cpu"]]])
def test_options_that_are_no_mapping_are_refused(options: Any, given: Any) -> None:
    with pytest.raises(ValueError, match="expected a mapping from names to values"):
        options.check(given, rules_of(options, "inference"), "The model 'm'")


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("inference", {**MODEL, "result_extension": ".nrrd", "result_dtype": "uint16", "result_compress": False}),
        ("inference", {"device": "cpu", "model_filename": "model_1.pt", "client_id": "user-xyz", "logging": "error"}),
        ("batch", {"images": ["case_1"], "device": "cpu", "multi_gpu": True, "gpus": "all", "max_batch_size": 0}),
        ("batch", {"images": "unlabeled", "label_tag": "original", "save_label": True, "max_workers": 1}),
        ("training", TRAINER),
        ("training", {"max_epochs": 2, "val_split": -1, "tracking": "None", "gpus": "0,1", "run_id": ""}),
        ("scoring", {"simulation_size": 2, "max_samples": 0}),
        ("next_sample", {"client_id": "user-xyz"}),
    ],
)
def test_what_clients_send_passes(options: Any, kind: str, given: dict[str, Any]) -> None:
    assert options.check(given, rules_of(options, kind), "The model 'm'") == given


def test_notes_may_be_anything_plain_but_what_the_server_writes_itself(options: Any) -> None:
    notes = {"label_info": [{"name": "liver", "idx": 1}], "client_id": "x"}
    assert options.notes(notes, "The notes") == notes
    for given, message in (
        ({"strategy": 5}, "The notes set 'strategy', which the server writes itself"),
        ({"epistemic_entropy": "x"}, "The notes set 'epistemic_entropy'"),
        ({"a": [CODE]}, r"The notes: 'a', entry 0 begins with '\$'"),
        ([1], "The notes are"),
    ):
        with pytest.raises(ValueError, match=message):
            options.notes(given, "The notes")
