from __future__ import annotations

from typing import Any

import pytest
from monai.bundle import ConfigParser

from scripts.configuration.plan import follow, plan_of, versions

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
