"""The overlays that choose the network: backbones of BiPVL-Seg, baselines without words, late fusion."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.configuration.check import check_config
from scripts.words.table import ConceptTable

CONFIGS = Path(__file__).resolve().parents[2] / "bipvl_bundle" / "configs"
BACKBONES = ("swin_unetr_small", "swin_unetr_v2", "unet", "unetplusplus", "unetr")
# Baselines that are built here, in scripts/networks/baselines; the second ones read words.
OWN = ("stunet", "nnformer", "medformer", "medformer_isotropic")
READING = ("universal", "mulmodseg", "zept", "cat")
BASELINES = ("unet", "unetplusplus", "dynunet", "mednext", "unetr", "swin_unetr", "swin_unetr_v2", *OWN, *READING)
OVERLAYS = [
    *(f"backbone_{name}.yaml" for name in BACKBONES),
    *(f"baseline_{name}.yaml" for name in BASELINES),
    "ablation_late_fusion.yaml",
]
SWIN = {"feature_size": 12, "window_size": 4, "depths": [1, 1, 1, 1], "use_checkpoint": False}
MEDFORMER: dict[str, Any] = {
    "stem_channels": 4,
    "channels": [4, 8, 8, 8],
    "map_tokens": 4,
    "fusion_width": 8,
    "fusion_heads": 2,
}
MEDFORMER["num_heads"] = [1, 2, 2, 2, 2, 2, 1, 1]
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"channels": [4, 8, 16, 32, 64]},
    "unetplusplus": {"features": [4, 4, 8, 16, 32, 4]},
    "unetr": {"feature_size": 4, "hidden_size": 24, "mlp_dim": 48, "num_heads": 2},
    "dynunet": {"filters": [4, 8, 16, 32, 32]},
    "mednext": {"init_filters": 4},
    "stunet": {"channels": [2, 4, 4, 4, 4, 4], "depth": 1},
    "medformer": MEDFORMER,
    "medformer_isotropic": {**MEDFORMER, "attentions": [0, 1, 1, 2, 2, 1, 0, 0]},
    "nnformer": {"channels": 8, "num_heads": [1, 1, 2, 2], "windows": [2, 2, 4, 2]},
}


def merged(*names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in names])
    return parser


def small(overlay: str) -> dict[str, Any]:
    """Options that make the network of an overlay small; also, few enough tokens for the budget to bite."""
    name = overlay.removesuffix(".yaml").partition("_")[2]
    section = "network_def" if name in ("dynunet", "mednext", *OWN) else "backbone#network"
    options = {f"{section}#{key}": value for key, value in SMALL.get(name, SWIN).items()}
    if overlay == "backbone_unetr.yaml":
        options["network_def#num_heads"] = [2, 2, 2, 2]
    if not overlay.startswith("baseline_"):
        options["network_def#token_budget"] = 100
    return options


def test_every_overlay_of_these_kinds_is_tested_here() -> None:
    found = {path.name for kind in ("backbone", "baseline") for path in CONFIGS.glob(f"{kind}_*.yaml")}
    assert found == set(OVERLAYS) - {"ablation_late_fusion.yaml"} | {"baseline_backbone.yaml"}


class TestSets:
    @pytest.mark.parametrize("overlay", OVERLAYS)
    def test_fits_on_a_data_set_with_each_entry_file(self, overlay: str) -> None:
        for base, ends in (("train.yaml", ["evaluate.yaml"]), ("inference.yaml", [])):
            files = [base, "dataset_amos22.yaml", overlay, *ends]
            assert check_config([str(CONFIGS / name) for name in files]) == []

    @pytest.mark.parametrize("name", BACKBONES)
    def test_backbone_alone_fits_on_top(self, name: str) -> None:
        files = ["train.yaml", "dataset_amos22.yaml", f"backbone_{name}.yaml", "baseline_backbone.yaml"]
        assert check_config([str(CONFIGS / name) for name in files]) == []

    def test_anatomical_prompts_fit_on_top_of_cat(self) -> None:
        files = ["train.yaml", "dataset_amos22.yaml", "baseline_cat.yaml", "cat_anatomy.yaml"]
        assert check_config([str(CONFIGS / name) for name in files]) == []

    def test_backbone_before_the_data_set_is_noticed(self) -> None:
        files = ["train.yaml", "backbone_unet.yaml", "dataset_amos22.yaml"]
        problems = check_config([str(CONFIGS / name) for name in files])
        assert any("UNet takes no argument 'feature_size'" in problem for problem in problems)

    @pytest.mark.parametrize("overlay", OVERLAYS)
    def test_network_is_the_same_in_training_and_inference(self, overlay: str) -> None:
        train, inference = (merged(f"{base}.yaml", overlay) for base in ("train", "inference"))
        for key in ("backbone", "network_def", "variant", "ckpt_dir"):
            assert train[key] == inference[key]

    def test_each_has_a_folder_of_its_own(self) -> None:
        variants = [
            tuple(merged("train.yaml", overlay)["variant"]) for overlay in [*OVERLAYS, "baseline_backbone.yaml"]
        ]
        assert len({(), *variants}) == len(variants) + 1
        for overlay in OVERLAYS:
            assert merged("train.yaml", "dataset_amos22.yaml", overlay)["ckpt_dir"] == "$@output_dir + '/models'"

    @pytest.mark.parametrize("name", ["unet", "unetplusplus", "unetr"])
    def test_baseline_and_backbone_are_one_network(self, name: str) -> None:
        baseline, backbone = (merged("train.yaml", f"{kind}_{name}.yaml") for kind in ("baseline", "backbone"))
        backbone["backbone#network#out_channels"] = "@out_channels"  # what @backbone_channels is in the published form
        assert baseline["backbone"] == backbone["backbone"]

    def test_swin_unetr_v2_is_swin_unetr_but_for_one_switch(self) -> None:
        one, two = (dict(merged("train.yaml", f"baseline_swin_unetr{v}.yaml")["backbone#network"]) for v in ("", "_v2"))
        assert (one.pop("use_v2"), two.pop("use_v2")) == (False, True)
        assert one == two

    @pytest.mark.parametrize("name", ["unet", "unetplusplus", "unetr"])
    def test_heads_divide_the_channels_of_their_stages(self, name: str) -> None:
        parser = merged("train.yaml", f"backbone_{name}.yaml")
        parser["out_channels"] = 2
        with torch.device("meta"):
            channels = parser.get_parsed_content("backbone").stage_channels
        for width, heads in zip(channels, parser["network_def#num_heads"], strict=True):
            assert width % heads == 0
            assert width // heads >= 16


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("unet", 4.83),
        ("unetplusplus", 6.98),
        ("dynunet", 16.54),
        ("mednext", 11.05),
        ("unetr", 115.4),
        ("swin_unetr", 62.19),
        ("swin_unetr_v2", 72.76),
        ("stunet", 58.16),
        ("nnformer", 149.3),
        ("medformer", 21.83),
        ("medformer_isotropic", 39.59),
        ("universal", 62.60),
        ("mulmodseg", 62.60),
        ("zept", 82.02),
        ("cat", 101.8),
    ],
)
def test_baseline_has_as_many_parameters_as_the_authors(name: str, millions: float) -> None:
    """For one image channel and sixteen output channels."""
    parser = merged("train.yaml", f"baseline_{name}.yaml")
    parser["out_channels"], parser["roi_size"] = 16, [96, 96, 96]
    if name in READING:
        parser.update({"bundle_root": str(CONFIGS.parent), "network_def#text_encoder": None})
        parser["network_def#text_width"] = 512 if name in ("universal", "mulmodseg") else 768
    # Swin UNETR computes its drop rates from a tensor, which a device without data cannot.
    with torch.device("cpu" if name.startswith("swin") or name in READING else "meta"):
        network = parser.get_parsed_content("network_def")
    digits = 1 if millions > 100 else 2
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, digits) == millions


def norms_and_size(*names: str, **options: Any) -> tuple[set[str], int]:
    parser = merged("train.yaml", *names)
    parser.update({"out_channels": 16, "roi_size": [96, 96, 96], **options})
    if any(name in names[0] for name in READING):
        parser.update({"bundle_root": str(CONFIGS.parent), "network_def#text_encoder": None})
        parser["network_def#text_width"] = 8
    with torch.device("cpu" if any(name in names[0] for name in ("swin", *READING)) else "meta"):
        network = parser.get_parsed_content("backbone" if names[0].startswith("backbone") else "network_def")
    norms = {type(module).__name__ for module in network.modules() if "Norm" in type(module).__name__}
    return norms, sum(p.numel() for p in network.parameters())


class TestNorm:
    @pytest.mark.parametrize("overlay", [name for name in OVERLAYS if not name.startswith("ablation")])
    def test_bears_batches_of_one_patch(self, overlay: str) -> None:
        norms, _ = norms_and_size(overlay)
        assert norms
        assert norms <= {"InstanceNorm3d", "InstanceNorm1d", "GroupNorm", "LayerNorm", "ChannelNorm"}

    @pytest.mark.parametrize(
        "overlay", [f"{kind}_{name}.yaml" for kind in ("backbone", "baseline") for name in ("unet", "unetr")]
    )
    def test_of_the_authors_is_an_option_of_the_same_size(self, overlay: str) -> None:
        norms, size = norms_and_size(overlay, backbone_norm="batch")
        assert "BatchNorm3d" in norms
        assert "InstanceNorm3d" not in norms
        assert size == norms_and_size(overlay)[1]


DEEPLY_SUPERVISED = [(f"baseline_{name}.yaml", {"deep_supervision": True}) for name in ("stunet", "nnformer")]
VARIANTS = [(overlay, {}) for overlay in OVERLAYS] + DEEPLY_SUPERVISED
VARIANTS += [(f"baseline_{name}.yaml", {"alignment": True}) for name in ("zept", "cat")]
VARIANTS += [("baseline_medformer.yaml", {"auxiliary_head": True}), ("baseline_universal.yaml", {"own_loss": True})]


@pytest.mark.slow
@pytest.mark.parametrize(("overlay", "options"), VARIANTS)
def test_trains_evaluates_and_segments(
    run: Callable[..., None],
    tiny: dict[str, Any],
    trained: Any,
    tmp_path: Path,
    words: Path,
    overlay: str,
    options: dict[str, Any],
) -> None:
    shared = {key: value for key, value in tiny.items() if not key.startswith("backbone#")} | small(overlay) | options
    data = {key: value for key, value in trained.options.items() if key not in tiny} | {"max_epochs": 1}
    run("training", "train.yaml", overlay, **shared, **data)
    state = torch.load(tmp_path / "models/last.pt", weights_only=True)
    assert state["trainer"]["iteration"] >= 2
    assert any(name.startswith("text_encoder.") for name in state["model"]) == (not overlay.startswith("baseline_"))

    run("evaluating", "train.yaml", overlay, "evaluate.yaml", **shared, **data)
    with (tmp_path / "runs/metrics/metrics_per_case.csv").open(newline="") as file:
        assert {row["class"] for row in csv.DictReader(file)} == set(ConceptTable.load(words).classes)

    run("inference", "inference.yaml", overlay, **shared, dataset_dir=str(trained.data / "imagesTs"))
    written = [path.name for path in (tmp_path / "runs/predictions").glob("*.nii.gz")]
    assert written == ["phantom_test_001_seg.nii.gz"]


@pytest.mark.slow
def test_anatomical_prompts_come_from_the_training(
    run: Callable[..., None], tiny: dict[str, Any], trained: Any, tmp_path: Path
) -> None:
    shared = {key: value for key, value in tiny.items() if not key.startswith("backbone#")} | small("baseline_cat.yaml")
    data = {key: value for key, value in trained.options.items() if key not in tiny} | {"max_epochs": 1}
    run("training", "train.yaml", "baseline_cat.yaml", "cat_anatomy.yaml", **shared, **data)
    assert torch.load(tmp_path / "models/last.pt", weights_only=True)["model"]["anatomy"].all()
    inference = {**shared, "anatomical": True, "dataset_dir": str(trained.data / "imagesTs")}
    run("inference", "inference.yaml", "baseline_cat.yaml", **inference)
    assert list((tmp_path / "runs/predictions").glob("*.nii.gz"))
