"""The config files and the metadata, as they are committed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils import set_determinism

from scripts.configuration.check import check_config, config_sets
from scripts.words.table import ConceptTable

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "bipvl_bundle" / "configs"
DATASETS = sorted(path.name for path in CONFIGS.glob("dataset_*.yaml"))
TABLES = sorted((CONFIGS / "concepts").glob("*.yaml"))

# What train.yaml and inference.yaml call alike and yet set differently.
MEANT_TO_DIFFER = {
    "dataset_dir": "training reads a data set in the Decathlon's layout, inference a file or a folder",
    "ckpt_dir": "training writes to the folder of its run, inference reads the model that comes with the bundle",
    "sw_overlap": "validation during training trades accuracy for time",
    "initialize": "training seeds and makes its data, inference loads the model",
    "run": "each runs what it is there for",
}
# Optional properties of monai.bundle that the bundle does without.
DONE_WITHOUT = {
    "train": {"train_key_metric", "train_postprocessing"},  # in training the loss is all that is looked at
    "inference": {"key_metric"},  # there is nothing to compare with
}


def ids(sets: list[list[str]]) -> list[str]:
    return ["+".join(Path(path).stem for path in files) for files in sets]


def stacks() -> list[list[str]]:
    """The sets that the documentation puts together: a data set, the baseline and the evaluation on top."""
    base = [["train.yaml", name] for name in DATASETS] + [["train.yaml"]]
    ends = [["evaluate.yaml"], ["baseline_backbone.yaml"], ["baseline_backbone.yaml", "evaluate.yaml"]]
    return [[str(CONFIGS / name) for name in [*files, *end]] for files in base for end in ends]


def merged(*names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in names])
    return parser


def differing(train: dict[str, Any], inference: dict[str, Any]) -> set[str]:
    """Keys of both files with another value, apart from what a request alone can ask for."""
    table = {name: value for name, value in inference["concept_table"].items() if name not in ("words", "classes")}
    inference = {**inference, "concept_table": table}
    return {key for key in train.keys() & inference.keys() if train[key] != inference[key]}


class TestSets:
    @pytest.mark.parametrize("files", config_sets(CONFIGS), ids=ids(config_sets(CONFIGS)))
    def test_each_overlay_on_its_base(self, files: list[str]) -> None:
        assert check_config(files) == []

    @pytest.mark.parametrize("files", stacks(), ids=ids(stacks()))
    def test_overlays_on_overlays(self, files: list[str]) -> None:
        assert check_config(files) == []

    def test_every_file_is_in_a_set(self) -> None:
        covered = {Path(path).name for files in config_sets(CONFIGS) for path in files}
        assert covered == {path.name for path in CONFIGS.glob("*.yaml")}


class TestCommonBlocks:
    def test_same_name_same_content(self) -> None:
        train, inference = (yaml.safe_load((CONFIGS / f"{n}.yaml").read_text()) for n in ("train", "inference"))
        assert differing(train, inference) == set(MEANT_TO_DIFFER)

    def test_what_makes_the_prediction_is_common(self) -> None:
        """Else the comparison above would have nothing to compare."""
        keys = {
            "concept_table",
            "out_channels",
            "backbone",
            "network_def",
            "network",
            "intensity",
        }
        keys |= {
            "load_transforms",
            "label_transforms",
            "base_transforms",
            "preprocessing_transforms",
            "spacing",
            "roi_size",
            "softmax",
            "text_encoder",
        }
        for name in ("train", "inference"):
            assert keys <= set(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))

    def test_evaluation_measures_what_inference_would_write(self) -> None:
        """To labels in the grid of the file: the steps of both, but for the naming and the saving."""
        evaluation, inference = merged("train.yaml", "evaluate.yaml"), merged("inference.yaml")
        text = json.dumps(inference["postprocessing#transforms"][:-2])
        assert json.dumps(evaluation["validate#postprocessing#transforms"]) == text.replace(
            "@preprocessing", "@validate#preprocessing"
        )
        for key in ("sw_overlap", "invert_mode", "mirror_axes", "ensemble", "keep_largest", "remove_smaller"):
            assert evaluation[key] == inference[key]


def test_every_text_encoder_of_the_hub_is_pinned_by_a_commit() -> None:
    named = {path.name: yaml.safe_load(path.read_text()).get("text_encoder", "$") for path in CONFIGS.glob("*.yaml")}
    of_hub = {file: name for file, name in named.items() if not name.startswith("$")}
    assert set(of_hub) >= {"text_biobert.yaml", "text_clinicalbert.yaml", "text_pubmedbert.yaml", "dataset_amos22.yaml"}
    assert {
        file: name for file, name in of_hub.items() if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", name)
    } == {}
    commits = dict(name.split("@") for name in of_hub.values())
    assert set(of_hub.values()) == {f"{name}@{commit}" for name, commit in commits.items()}, "one model, two commits"


class TestMetadata:
    @pytest.fixture(scope="class")
    @classmethod
    def metadata(cls) -> dict[str, Any]:
        return json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))

    def test_follows_the_schema(self, metadata: dict[str, Any]) -> None:
        schema = json.loads((Path(__file__).parent / "meta_schema_20240725.json").read_text())
        jsonschema.validate(metadata, schema)
        assert metadata["schema"].endswith("/meta_schema_20240725.json")
        with pytest.raises(jsonschema.ValidationError, match="'version' is a required property"):
            jsonschema.validate({k: v for k, v in metadata.items() if k != "version"}, schema)

    def test_version_is_in_the_changelog(self, metadata: dict[str, Any]) -> None:
        assert metadata["version"] in metadata["changelog"]
        assert next(iter(metadata["changelog"])) == metadata["version"], "newest first"

    def test_versions_are_those_of_the_requirements(self, metadata: dict[str, Any]) -> None:
        lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
        pins = [re.match(r'([\w-]+)==([\w.]+)(?:; python_version >= "3.11")?$', line) for line in lines]
        required = {pin[1]: pin[2] for pin in pins if pin}
        names = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
        assert {name: required[name] for name in names} == {name: metadata[key] for name, key in names.items()}
        packages = metadata["required_packages_version"]
        assert packages == {name: required.get(name) for name in packages}

    def test_channels_are_the_classes_of_the_default(self, metadata: dict[str, Any]) -> None:
        classes = ConceptTable.load(CONFIGS / "concepts/phantom.yaml").classes
        named = {"0": "background"} | {str(c): name for c, name in enumerate(classes, start=1)}
        output = metadata["network_data_format"]["outputs"]["pred"]
        assert output["channel_def"] == named
        assert output["num_channels"] == len(named)
        assert metadata["label_classes"] == "single channel, " + ", ".join(f"{k} {v}" for k, v in named.items())

    def test_patch_is_that_of_the_default(self, metadata: dict[str, Any]) -> None:
        config, formats = merged("inference.yaml"), metadata["network_data_format"]
        for tensor in (formats["inputs"]["image"], formats["outputs"]["pred"]):
            assert tensor["spatial_shape"] == config["roi_size"]
        assert formats["inputs"]["image"]["num_channels"] == config["in_channels"]
        window = config["intensity"][0]
        assert formats["inputs"]["image"]["value_range"] == [window["b_min"], window["b_max"]]


class TestProperties:
    """The contract of the tools around a bundle, with the bundle's own text encoder and words."""

    @pytest.mark.parametrize(("kind", "properties"), [("train", TrainProperties), ("inference", InferProperties)])
    def test_nothing_is_missing(
        self, trained: Any, bundle_root: Path, tmp_path: Path, kind: str, properties: dict[str, Any]
    ) -> None:
        data = trained.data if kind == "train" else trained.data / "imagesTs"
        options = {
            "bundle_root": str(bundle_root),
            "dataset_dir": str(data),
            "output_dir": str(tmp_path / "runs"),
        }
        options |= {"ckpt_dir": str(tmp_path / "models"), "spacing": [8.0, 8.0, 8.0]}
        options |= {"prepare_data": None} if kind == "train" else {}
        path = str(CONFIGS / f"{kind}.yaml")
        workflow = ConfigWorkflow(path, workflow_type=kind, logging_file=False, init_id="absent", **options)
        try:
            workflow.initialize()
            assert workflow.check_properties() == []
        finally:
            set_determinism(None)
        optional = {name: p["id"] for name, p in properties.items() if not p["required"]}
        absent = {name for name, id in optional.items() if id not in workflow.parser}
        assert absent == DONE_WITHOUT[kind]

    def test_every_optional_part_has_its_usual_id(self) -> None:
        assert isinstance(merged("train.yaml")["train#handlers"], list)
        assert merged("train.yaml")["train#trainer#train_handlers"] == "@train#handlers"


class TestConceptTables:
    @pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
    def test_is_valid_in_each_format(self, path: Path) -> None:
        table = ConceptTable.load(path)
        for name in ("fixed", "aggregated", "name"):
            assert len(table.as_format(name).sentences) == len(table.classes)

    @pytest.mark.parametrize("name", [*DATASETS, "train.yaml"])
    def test_every_data_set_has_one(self, name: str) -> None:
        parser = merged("train.yaml", name)
        parser["bundle_root"] = str(REPOSITORY / "bipvl_bundle")
        table = ConceptTable.load(parser.get_parsed_content("concepts_file"))
        assert parser.get_parsed_content("class_names") == table.classes
        assert parser.get_parsed_content("out_channels") == len(table.classes) + parser["softmax"]


class TestPaperRecipe:
    """AMOS22 as in table 4, table 6 and section 4.1; what the paper leaves open is in the design's table."""

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls) -> ConfigParser:
        return merged("train.yaml", "dataset_amos22.yaml")

    @pytest.mark.parametrize(
        ("id", "value"),
        [
            ("max_epochs", 300),
            ("val_interval", 5),
            ("num_folds", 3),
            ("learning_rate", 1e-4),
            ("weight_decay", 1e-5),
            ("min_learning_rate", 1e-7),
            ("optimizer#_target_", "torch.optim.AdamW"),
            ("lr_scheduler#_target_", "torch.optim.lr_scheduler.CosineAnnealingLR"),
            ("lr_scheduler#T_max", "@train#trainer#max_epochs"),
            ("train#trainer#max_epochs", "@max_epochs"),
            ("roi_size", [96, 96, 96]),
            ("spacing", [1.5, 1.5, 2.0]),
            ("intensity#0#_target_", "ScaleIntensityRanged"),
            ("intensity#0#a_min", -175),
            ("intensity#0#a_max", 250),
            ("intensity#0#b_min", 0.0),
            ("intensity#0#b_max", 1.0),
            ("intensity#0#clip", True),
            ("intensity#1#_target_", "CropForegroundd"),
            ("backbone#network#_target_", "SwinUNETR"),
            ("backbone#network#feature_size", 48),
            ("text_encoder", "emilyalsentzer/Bio_ClinicalBERT@d5892b39a4adaed74b92212a44081509db72f87b"),
            ("text_stage_layers", [6, 2, 2, 2]),
            ("text_format", "fixed"),
            ("softmax", True),
            ("loss_def#alignment#temperature", 0.2),
            ("loss_def#alignment#global_weight", 1.0),
            ("loss_def#alignment#local_weight", 1.0),
            ("loss_def#alignment#hard_negatives", 3),
            ("loss_def#alignment#noise", 0.01),
            ("loss_def#use_alignment", True),
            ("loss_def#use_class_embedding", True),
        ],
    )
    def test_value(self, config: ConfigParser, id: str, value: Any) -> None:
        assert config[id] == value

    def test_orientation_comes_before_spacing(self, config: ConfigParser) -> None:
        targets = [transform["_target_"] for transform in config["base_transforms"]]
        assert config["base_transforms#1#axcodes"] == "RAS"
        assert targets.index("Orientationd") < targets.index("scripts.data.transforms.SafeSpacingd")

    def test_patches_are_sampled_by_label(self, config: ConfigParser) -> None:
        crops = [t for t in config["train#random_transforms"] if "RandCropBy" in t["_target_"]]
        assert [(crop["label_key"], crop["spatial_size"]) for crop in crops] == [("label", "@roi_size")]

    def test_every_augmentation_of_section_7_2_is_on(self, config: ConfigParser) -> None:
        assert min(config["flip_prob"]) > 0
        flips = [t for t in config["train#random_transforms"] if t["_target_"] == "RandFlipd"]
        assert [(t["spatial_axis"], t["prob"]) for t in flips] == [(i, f"@flip_prob#{i}") for i in range(3)]
        assert min(config[key] for key in ("rotate_prob", "rotate_range", "shift_intensity_prob")) > 0
        assert config["shift_intensity"] > 0

    def test_concepts_are_the_six_of_the_template_for_fifteen_organs(self) -> None:
        table = ConceptTable.load(CONFIGS / "concepts/amos22.yaml")
        assert (len(table.classes), len(table.concepts)) == (15, 6)
        assert table.classes[:3] == ("spleen", "right kidney", "left kidney")
        assert table.classes[-1].startswith("prostate")


@pytest.mark.parametrize("name", DATASETS)
def test_overlay_leaves_both_entry_files_alike(name: str) -> None:
    train, inference = merged("train.yaml", name).get(), merged("inference.yaml", name).get()
    # An overlay of a data set gives the folders of that set to both.
    assert differing(train, inference) == set(MEANT_TO_DIFFER) - {"dataset_dir", "ckpt_dir"}
