"""One training over several data sets that label different classes: `configs/several_data_sets.yaml`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.data.several import SeveralDataSets
from scripts.networks.weights import read_checkpoint, record_of
from scripts.words.table import ConceptTable

FILES = ("train.yaml", "several_data_sets.yaml")
FIRST, SECOND = ["spleen", "liver"], ["aorta", "stomach"]


@pytest.fixture
def settings(trained: Any, words: Path) -> dict[str, Any]:
    """What describes the miniature phantom as one of several data sets."""
    own = {"dataset_dir": str(trained.data), "prepare_data": None, "concepts_file": str(words)}
    return {**own, "spacing": [8.0, 8.0, 8.0], "num_folds": 2}


@pytest.fixture
def halves(settings: dict[str, Any]) -> dict[str, Any]:
    """Two data sets: of every case of the phantom, of a third of them two other classes."""
    return {
        "a": {**settings, "labels": FIRST},
        "b": {**settings, "labels": SECOND, "part": [0, 3], "spacing": [9.0, 9.0, 9.0]},
    }


@pytest.fixture
def several(halves: dict[str, Any], bundle_root: Path) -> SeveralDataSets:
    return SeveralDataSets(halves, bundle_root / "configs", {"fold": 0})


def test_cases_know_their_data_set_and_smaller_ones_are_repeated(several: SeveralDataSets) -> None:
    owners = [item["data_set"] for item in several.training]
    assert owners == ["a", "a", "a", "b", "b", "b"]
    assert len({item["case"] for item in several.training}) == 4
    assert {item["case"].split("_")[0] for item in several.validation} == {"a", "b"}


def test_a_case_is_preprocessed_and_labelled_as_its_data_set_says(several: SeveralDataSets, words: Path) -> None:
    classes = list(ConceptTable.load(words).classes)
    for item, names, size in ((several.training[0], FIRST, 8.0), (several.training[-1], SECOND, 9.0)):
        case = several.preprocessing(item)
        assert case["label"].pixdim.tolist() == pytest.approx([size] * 3)
        assert set(case["label"].unique().int().tolist()) == {0, *(classes.index(name) + 1 for name in names)}
        assert [name for name, shown in zip(classes, case["labelled"], strict=True) if shown] == [
            name for name in classes if name in names
        ]


class TestTraining:
    @pytest.fixture
    def options(self, trained: Any, halves: dict[str, Any]) -> dict[str, Any]:
        kept = ("text_encoder", "backbone#network#depths", "roi_size")
        options = {key: trained.options[key] for key in kept}
        return {**options, "data_sets": halves, "max_epochs": 1, "val_interval": 1, "subset_prob": 1.0}

    def test_one_model_learns_from_both_and_follows_its_plan(
        self, run: Callable[..., None], options: Any, trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            run("training", *FILES, batch_size=2, **options)
        epoch = next(text for text in caplog.messages if text.startswith("Epoch 1/1"))
        assert "segmentation" in epoch
        scores = next(text for text in caplog.messages if "Metrics -- " in text)
        assert "mean_dice_a:" in scores
        assert "mean_dice_b:" in scores
        model = tmp_path / "models/model.pt"
        assert set(record_of(read_checkpoint(model, quiet=True))["data_sets"]) == {"a", "b"}
        kept = {key: value for key, value in trained.options.items() if key not in ("spacing", "roi_size")}
        caplog.clear()
        with caplog.at_level(logging.INFO):
            run("evaluating", "train.yaml", "evaluate.yaml", ckpt_path=str(model), **kept)
        followed = next(text for text in caplog.messages if text.startswith("Used as the model was trained"))
        assert "spacing" in followed.split(": ")[1].rstrip(".").split(", ")

    def test_network_that_cannot_leave_out_the_unlabelled_is_refused(
        self, failing_run: Callable[..., BaseException], options: Any
    ) -> None:
        files = (FILES[0], "baseline_backbone.yaml", FILES[1])
        del options["text_encoder"], options["subset_prob"]
        failing_run(ValueError, "cannot learn from several data sets that label", "training", *files, **options)


class TestBadDescription:
    @pytest.mark.parametrize(
        ("changes", "kind", "message"),
        [
            ({"dataset_dir": "/absent"}, FileNotFoundError, "Data set 'b' of `data_sets`: There is no data set folder"),
            ({"overlays": ["dataset_x.yaml"]}, OSError, "Data set 'b' of `data_sets`: .*dataset_x.yaml"),
            ({"spacings": [1, 1, 1]}, ValueError, "'b' .*no setting 'spacings'; the nearest is 'spacing'"),
            ({"labels": ["colon"]}, ValueError, "'colon' is none of the classes"),
            ({"part": [3, 3]}, ValueError, r"'b' .*`part` is \[3, 3\]; expected \[i, n\] with i from 0"),
            ({"part": "half"}, ValueError, "'b' .*`part` is 'half'; expected"),
            ({"in_channels": 2}, ValueError, "need one `in_channels`; found {'a': 1, 'b': 2}"),
        ],
    )
    def test_is_refused_by_name(
        self, halves: dict[str, Any], bundle_root: Path, changes: dict[str, Any], kind: Any, message: str
    ) -> None:
        with pytest.raises(kind, match=message):
            SeveralDataSets({**halves, "b": {**halves["b"], **changes}}, bundle_root / "configs", {"fold": 0})

    @pytest.mark.parametrize("data_sets", [{}, ["dataset_hippocampus.yaml"], {"a": "dataset_hippocampus.yaml"}])
    def test_no_description_is_refused(self, bundle_root: Path, data_sets: Any) -> None:
        with pytest.raises(ValueError, match="expected "):
            SeveralDataSets(data_sets, bundle_root / "configs")


def test_network_answers_for_what_is_labelled(make_network: Callable[..., Any], image: torch.Tensor) -> None:
    labelled = ((True, False, True), (False, True, True))
    for head in ("words", "channels"):
        question = make_network(head=head).train()(image, labelled=labelled).question
        assert question.labelled == labelled
    assert make_network(head="words").train()(image, labelled=((True,) * 3,) * 2).question.labelled is None
