"""The overlays of words and ablations, run as a user runs them."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser

from scripts.configuration.check import check_config
from scripts.words.loading import load_concepts
from scripts.words.table import ConceptTable

CONFIGS = Path(__file__).resolve().parents[2] / "bipvl_bundle" / "configs"
TEXTS = ("text_clinicalbert", "text_biobert", "text_pubmedbert")
OF_WORDS = (
    "ablation_text_aggregated",
    "ablation_text_name",
    "ablation_text_ambiguous",
    "ablation_leave_out",
    "ablation_shuffled_words",
)
OF_THE_LOSS = ("ablation_global_only", "ablation_no_alignment", "ablation_present_only")
OF_THE_NETWORK = ("ablation_no_vision_self_attention", "ablation_no_residual", "ablation_all_tokens")
TRAINED = (*TEXTS, *OF_WORDS, *OF_THE_LOSS, *OF_THE_NETWORK)
Run = Callable[..., None]


def parsed(*names: str, **options: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in names])
    for key, value in {"bundle_root": str(CONFIGS.parent), **options}.items():
        parser[key] = value
    return parser


def overlay(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))


class TestOverlays:
    @pytest.mark.parametrize("name", [*TEXTS, *OF_WORDS, *OF_THE_NETWORK, "ablation_swap_words"])
    def test_what_changes_the_network_or_its_words_fits_inference_too(self, name: str) -> None:
        assert check_config([str(CONFIGS / "inference.yaml"), str(CONFIGS / f"{name}.yaml")]) == []

    @pytest.mark.parametrize("dataset", [[], ["dataset_hippocampus"]])
    def test_each_run_has_folders_of_its_own(self, dataset: list[str]) -> None:
        runs = [parsed("train", *dataset, *name) for name in [[], *([name] for name in TRAINED)]]
        for key in ("output_dir", "ckpt_dir"):
            folders = [run.get_parsed_content(key) for run in runs]
            assert len(set(folders)) == len(TRAINED) + 1

    def test_overlays_fold_and_seed_add_up_to_one_folder(self) -> None:
        names = ["dataset_hippocampus", "text_biobert", "ablation_late_fusion"]
        for base in ("train", "inference"):
            folder = parsed(base, *names, fold=2, seed=1).get_parsed_content("ckpt_dir")
            assert folder.endswith("/runs/hippocampus_biobert_late_fusion_fold2_seed1/models")

    def test_training_stays_out_of_the_models_that_come_with_the_bundle(self) -> None:
        assert parsed("train").get_parsed_content("ckpt_dir") == f"{CONFIGS.parent}/runs/phantom/models"
        assert parsed("inference").get_parsed_content("ckpt_path") == f"{CONFIGS.parent}/models/model.pt"

    def test_leaving_another_concept_out_is_another_run(self) -> None:
        folder = parsed("train", "ablation_leave_out", leave_out="shape").get_parsed_content("ckpt_dir")
        assert folder.endswith("/runs/phantom_without_shape/models")

    @pytest.mark.parametrize("base", [["train", "evaluate"], ["inference"]])
    @pytest.mark.parametrize("under", [[], ["ablation_leave_out"], ["dataset_hippocampus", "text_biobert"]])
    def test_swapped_words_keep_the_trained_model_and_write_elsewhere(self, base: list[str], under: list[str]) -> None:
        plain, swapped = parsed(*base, *under), parsed(*base, *under, "ablation_swap_words")
        assert swapped.get_parsed_content("ckpt_path") == plain.get_parsed_content("ckpt_path")
        key = "metrics_dir" if "train" in base else "predictions_dir"
        assert swapped.get_parsed_content(key) == f"{plain.get_parsed_content(key)}_swapped_words"

    @pytest.mark.parametrize("name", [path.stem for path in CONFIGS.glob("dataset_*.yaml")])
    def test_every_data_set_has_ambiguous_words(self, name: str) -> None:
        file = parsed("train", name, "ablation_text_ambiguous").get_parsed_content("concepts_file")
        plain = parsed("train", name).get_parsed_content("concepts_file")
        assert ConceptTable.load(file).classes == ConceptTable.load(plain).classes

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("ablation_text_aggregated", {"text_format": "aggregated"}),
            ("ablation_text_name", {"text_format": "name"}),
            ("ablation_leave_out", {"leave_out": "location"}),
            ("ablation_shuffled_words", {"shuffle_seed": 0}),
            ("ablation_swap_words", {"swap": ["right kidney", "left kidney"]}),
        ],
    )
    def test_the_options_reach_the_table(self, name: str, expected: dict[str, Any]) -> None:
        parser = parsed("train", name)
        table = parser.get_parsed_content("concept_table")
        assert table == load_concepts(CONFIGS / "concepts" / "phantom.yaml", **expected)
        assert table != load_concepts(CONFIGS / "concepts" / "phantom.yaml")

    @pytest.mark.parametrize("name", TEXTS)
    def test_a_text_encoder_of_the_paper_is_cut_as_in_the_paper(self, name: str) -> None:
        assert overlay(name)["text_stage_layers"] == [6, 2, 2, 2]


class TestTraining:
    def test_name_alone_trains_by_the_global_alignment_and_tells_of_unreviewed_words(
        self, run: Run, trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        options = {**trained.options, "max_epochs": 1, "val_interval": 1}
        with caplog.at_level(logging.INFO):
            run("training", "train.yaml", "ablation_text_name.yaml", **options)
        messages = [record.getMessage() for record in caplog.records]
        told = [number for number, message in enumerate(messages) if "UNREVIEWED WORDS" in message]
        epoch = next(number for number, message in enumerate(messages) if "Epoch 1/1" in message)
        assert len(told) == 1
        assert told[0] < epoch
        assert caplog.records[told[0]].levelname == "WARNING"
        assert "learns from phantom.yaml" in messages[told[0]]
        assert "alignment_global" in messages[epoch]
        assert "alignment_local" not in messages[epoch]
        assert (tmp_path / "models/model.pt").is_file()

    @pytest.mark.slow
    @pytest.mark.parametrize("name", TRAINED)
    def test_every_overlay_trains(self, run: Run, trained: Any, bundle_root: Path, tmp_path: Path, name: str) -> None:
        """With the bundle's own words; its small text encoder stands in for those of the hub."""
        options = {**trained.options, "max_epochs": 1, "val_interval": 1, "text_stage_layers": [1, 1, 1, 1]}
        options |= {"text_encoder": str(bundle_root / "models/text_encoder"), "train#trainer#epoch_length": 2}
        del options["concepts_file"]
        run("training", "train.yaml", f"{name}.yaml", **options)
        assert (tmp_path / "models/model.pt").is_file()

    def test_swapped_words_are_refused(self, failing_run: Callable[..., BaseException], trained: Any) -> None:
        files = ("train.yaml", "ablation_swap_words.yaml")
        failing_run(ValueError, "`swap` .* set it in evaluation or inference", "training", *files, **trained.options)


class TestEvaluation:
    def test_swapped_words_are_read_by_the_trained_model_as_it_stands(
        self, run: Run, trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = trained.best.read_bytes()
        options = {**trained.options, "ckpt_path": str(trained.best)}
        with pytest.warns(UserWarning, match="not those that the checkpoint was trained"):
            run("evaluating", "train.yaml", "evaluate.yaml", "ablation_swap_words.yaml", **options)
        assert "'right kidney' and 'left kidney' in phantom.yaml are exchanged" in caplog.text
        assert (tmp_path / "runs/metrics_swapped_words/metrics_summary.csv").is_file()
        assert not (tmp_path / "runs/metrics").exists()
        assert trained.best.read_bytes() == before

    def test_a_class_of_another_data_set_is_named(
        self, failing_run: Callable[..., BaseException], trained: Any
    ) -> None:
        files = ("train.yaml", "evaluate.yaml", "ablation_swap_words.yaml")
        options = {**trained.options, "ckpt_path": str(trained.best), "swap": ["liver", "spleem"]}
        failing_run(ValueError, "no class 'spleem'; did you mean 'spleen'", "evaluating", *files, **options)


@pytest.mark.slow
def test_the_warning_stands_among_the_logs_of_the_bundle() -> None:
    """With its logging.conf, by which `python -m monai.bundle run` sets up its logs."""
    code = (
        "import logging.config, types;"
        "logging.config.fileConfig('configs/logging.conf', disable_existing_loggers=False);"
        "from scripts.training.words import prepare_words as check;"
        "table = types.SimpleNamespace(reviewed=False, source='organs.yaml');"
        "check(types.SimpleNamespace(concepts=table, learn=lambda *_: None))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CONFIGS.parent, capture_output=True, text=True, check=True)
    assert "WARNING scripts.training.words: UNREVIEWED WORDS: this training learns from organs.yaml" in done.stdout
