from __future__ import annotations

from typing import Any

import pytest
from monai.bundle import ConfigParser

from scripts.configuration.plan import follow, plan_of, require_same_plan, versions

BASE = {
    "network_def": {"_target_": "Net", "width": "@width", "depth": 2},
    "width": "$@channels * 2",
    "channels": 1,
    "preprocessing_transforms": [],
    "roi_size": [32, 32, 32],
    "softmax": True,
    "text_format": "fixed",
    "max_epochs": 3,
}


def parser_with(**changes: Any) -> ConfigParser:
    return ConfigParser({**BASE, **changes})


def test_plan_is_what_the_network_and_the_preprocessing_refer_to() -> None:
    assert set(plan_of(BASE)) == set(BASE) - {"max_epochs", "text_format"}


def test_default_gives_way_to_the_model() -> None:
    parser = parser_with()
    assert follow(parser, {"roi_size": [64, 64, 64]}, written={}, defaults=BASE) == ["roi_size"]
    assert parser.get_parsed_content("roi_size") == [64, 64, 64]


def test_setting_of_the_training_files_gives_way_to_an_option_of_the_training() -> None:
    parser = parser_with(roi_size=[48, 48, 48])
    follow(parser, {"roi_size": [64, 64, 64]}, written={"roi_size": [48, 48, 48]}, defaults=BASE)
    assert parser["roi_size"] == [64, 64, 64]


@pytest.mark.parametrize("stated", [set(), {"roi_size"}])
def test_contradiction_names_the_key_and_both_values(stated: set[str]) -> None:
    parser = parser_with(roi_size=BASE["roi_size"] if stated else [96, 96, 96])
    found = "32, 32, 32" if stated else "96, 96, 96"
    with pytest.raises(ValueError, match=rf"trained with roi_size = \[64, 64, 64\]; this run has \[{found}\]"):
        follow(parser, {"roi_size": [64, 64, 64]}, written={}, defaults=BASE, stated=stated)
    assert follow(parser, {"roi_size": [64, 64, 64]}, written={}, defaults=BASE, stated=stated, free=["roi_size"]) == []


def test_nested_setting_is_named() -> None:
    parser = parser_with(network_def={"_target_": "Net", "width": "@width", "depth": 5})
    with pytest.raises(ValueError, match=r"network_def#depth = 3; this run has 5"):
        follow(parser, {"network_def": {**BASE["network_def"], "depth": 3}}, written={}, defaults=BASE)


def test_width_of_an_overlay_gives_way_to_the_backbone_of_the_model(caplog: pytest.LogCaptureFixture) -> None:
    wide = {"backbone": {"_target_": "Net", "feature_size": 24}}
    narrow = {"backbone": {"_target_": "Net", "feature_size": 12}}
    parser = ConfigParser(dict(wide))
    assert follow(parser, narrow, written={}, defaults={}) == ["backbone"]
    assert parser.get("backbone") == narrow["backbone"]
    assert "The model's own is used: backbone#feature_size = 12 (not 24)." in caplog.text
    with pytest.raises(
        ValueError, match=r"backbone#feature_size = 12; this run has 24.* give --backbone#feature_size 12"
    ):
        follow(ConfigParser(dict(wide)), narrow, written={}, defaults={}, stated={"backbone"})
    other = {"backbone": {"_target_": "Other", "feature_size": 24}}
    with pytest.raises(ValueError, match='backbone#_target_ = "Net"; this run has "Other"'):
        follow(ConfigParser(other), narrow, written={}, defaults={})


def test_contradictions_are_told_with_the_options_that_end_them() -> None:
    plan = {"spacing": [2.0, 2.0, 2.0], "head": "words", "fused": True}
    parser = ConfigParser({"spacing": [1.0, 1.0, 1.0], "head": "channels", "fused": False})
    options = r'give --spacing "\[2.0, 2.0, 2.0\]" --head words --fused True\. .*--not_as_trained'
    with pytest.raises(
        ValueError, match=rf"So it is with head, fused\. .*{options} \"\['spacing', 'head', 'fused'\]\""
    ):
        follow(parser, plan, written={}, defaults={})


def test_other_words_are_no_contradiction() -> None:
    parser = parser_with(text_format="name")
    assert follow(parser, {"text_format": "aggregated"}, written={}, defaults=BASE, stated={"text_format"}) == []


def test_table_of_a_request_stays_while_what_it_is_made_of_gives_way() -> None:
    """The table of inference.yaml reads a request's words, which that of a training does not have."""
    asked = {"_target_": "load", "text_format": "@text_format", "words": {"x": {"title": "A bean."}}}
    parser, trained = parser_with(concept_table=asked), {"_target_": "load", "text_format": "@text_format"}
    plan = {"concept_table": trained, "text_format": "name"}
    assert follow(parser, plan, written={}, defaults={**BASE, "concept_table": asked}) == ["text_format"]
    assert parser["concept_table"]["words"] == {"x": {"title": "A bean."}}


def test_versions_name_torch() -> None:
    assert {"python", "torch", "monai"} <= set(versions())


OF_MONAI = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "Orientationd", "keys": "image"}]
CHECKING = [{"_target_": "scripts.data.loading.SafeLoadImaged", "keys": "image"}, OF_MONAI[1]]


def test_model_of_an_earlier_version_reads_files_by_the_loader_that_checks_them() -> None:
    parser = parser_with(preprocessing_transforms=CHECKING)
    plan = {"preprocessing_transforms": OF_MONAI}
    assert follow(parser, plan, written={}, defaults=parser_with(preprocessing_transforms=CHECKING)) == []
    parser = parser_with(preprocessing_transforms=[])
    assert follow(parser, plan, written={}, defaults=BASE) == ["preprocessing_transforms"]
    assert parser["preprocessing_transforms"] == CHECKING


def test_models_that_differ_in_the_loader_alone_have_one_plan() -> None:
    require_same_plan({"load": OF_MONAI}, {"load": CHECKING}, "The second")
    with pytest.raises(ValueError, match="The second was trained with load"):
        require_same_plan({"load": OF_MONAI}, {"load": CHECKING[:1]}, "The second")
