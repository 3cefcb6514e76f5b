from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import SwinUNETR, UNet
from torch import nn

from scripts.export import command as export
from scripts.export.command import export_model, save_onnx, save_pt2, trace
from scripts.export.fixed_words import FixedWords
from scripts.export.metadata import metadata_of
from scripts.export.network import METADATA_KEY, OnnxNetwork, describe_export
from scripts.networks.backbones.swin_unetr import SwinUNETRBackbone
from scripts.networks.backbones.unet import UNetBackbone

WITHOUT_ONNX = "ONNX is an optional format: pip install onnx onnxscript onnxruntime"
CONFIGS = Path(__file__).resolve().parents[2] / "bipvl_bundle/configs"
EDGES = (32, 32, 32)
METADATA = {"classes": ["spleen"], "channels": ["background", "spleen"], "in_channels": 1, "roi_size": list(EDGES)}


def make_unet(channels: int) -> UNetBackbone:
    return UNetBackbone(UNet(3, 1, channels, channels=(4, 4, 8, 8, 8), strides=(2, 2, 2, 2)))


def make_swin(channels: int, **arguments) -> SwinUNETRBackbone:
    sizes = {"feature_size": 12, "window_size": 4, "depths": (2, 1, 1, 1)}
    return SwinUNETRBackbone(SwinUNETR(in_channels=1, out_channels=channels, **sizes, **arguments))


def images(batch: int, edges: tuple[int, ...] = EDGES) -> torch.Tensor:
    return torch.randn(batch, 1, *edges, generator=torch.Generator().manual_seed(batch))


def by_time(names: Iterable[str], quick: set[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@pytest.fixture
def small(make_network, awaken):
    """A network on a U-Net, which is traced faster than one on Swin UNETR."""

    def make(**arguments):
        return awaken(make_network(make_backbone=make_unet, num_heads=(1, 1, 1, 1), **arguments)).eval()

    return make


class TestFixedWords:
    @pytest.mark.parametrize("fused_stages", [(1, 2, 3, 4), (2, 4), (4,), ()])
    @torch.no_grad()
    def test_equals_the_network_bit_for_bit(self, small, fused_stages):
        network = small(fused_stages=fused_stages)
        assert torch.equal(FixedWords(network)(images(2)), network(images(2)))

    @torch.no_grad()
    def test_equals_a_network_with_kernels_of_words_and_keeps_no_more_of_them(self, small):
        network = small(head="words")
        fixed = FixedWords(network)
        assert torch.equal(fixed(images(2)), network(images(2)))
        assert {name.split(".")[0] for name in fixed.state_dict()} == {
            "words",
            "kernels",
            "backbone",
            "fusions",
            "text_encoder",
        }

    @torch.no_grad()
    def test_keeps_its_words_when_the_network_gets_others(self, small, table):
        network = small()
        fixed = FixedWords(network)
        before = fixed(images(1))
        network.set_concepts(table.replace_sentences({"liver": {"shape": "A long thin tube."}}))
        assert not torch.allclose(network(images(1)), before)
        assert torch.equal(fixed(images(1)), before)

    def test_leaves_the_network_whole(self, small):
        network = small()
        names = set(network.state_dict())
        FixedWords(network)
        assert set(network.state_dict()) == names

    def test_holds_no_word_embeddings_and_nothing_of_the_alignment(self, small):
        kept = {name.split(".")[0] for name in FixedWords(small()).state_dict()}
        assert kept == {"words", "backbone", "fusions", "text_encoder"}
        names = [name for name in FixedWords(small(fused_stages=(2, 4))).state_dict() if "text_encoder" in name]
        assert names
        assert all(name.startswith(("text_encoder.stages.2", "text_encoder.stages.3")) for name in names)


class TestParity:
    """Logits at batches of 1, 2 and 3, against the network itself."""

    CASES: ClassVar = {
        "swin-softmax": (make_swin, {}),
        "swin-overlapping": (make_swin, {"softmax": False}),
        "swin-words": (make_swin, {"head": "words"}),
        "swin-v2": (partial(make_swin, use_v2=True), {}),
        "swin-checkpointing": (partial(make_swin, use_checkpoint=True), {}),
        "unet-overlapping": (make_unet, {"softmax": False, "num_heads": (1, 1, 1, 1)}),
        "unet-pooled": (make_unet, {"token_budget": 300, "fused_stages": (1, 3), "num_heads": (1, 1, 1, 1)}),
    }

    @pytest.fixture
    def traced(self, make_network, awaken):
        def run(name: str) -> tuple[nn.Module, Any, tuple[int, ...]]:
            make_backbone, arguments = self.CASES[name]
            edges = EDGES if make_backbone is make_unet else (64, 32, 32)
            network = awaken(make_network(make_backbone=make_backbone, **arguments)).eval()
            return network, trace(network, [1, *edges]), edges

        return run

    @pytest.mark.parametrize("name", by_time(CASES, quick={"unet-overlapping"}))
    def test_program_within_1e_5_of_the_largest_logit(self, traced, tmp_path, name):
        network, program, edges = traced(name)
        self.check(network, save_pt2(program, tmp_path / "m.pt2", METADATA), 1e-5, edges)

    @pytest.mark.parametrize("name", by_time(CASES, quick=set()))
    def test_onnx_within_1e_4_of_the_largest_logit(self, traced, tmp_path, name):
        for package in export.ONNX_PACKAGES:
            pytest.importorskip(package, reason=WITHOUT_ONNX)
        network, program, edges = traced(name)
        metadata = {**METADATA, "roi_size": list(edges)}
        self.check(network, save_onnx(program, tmp_path / "m.onnx", metadata), 1e-4, edges)

    @torch.no_grad()
    def check(self, network, exported, tolerance, edges):
        for batch in (1, 2, 3):
            expected = network(images(batch, edges))
            found = exported(images(batch, edges))
            assert found.shape == expected.shape
            assert expected.std() > 0.01
            assert (found - expected).abs().max() <= tolerance * expected.abs().max()

    @pytest.mark.parametrize(("edges", "cells"), [((5, 7, 9), (3, 4, 2)), ((6, 4, 8), (3, 4, 8))])
    def test_pooling_for_onnx_is_adaptive_pooling(self, edges, cells):
        features = images(2, edges)
        torch.testing.assert_close(export._pool_by_axis(features, cells), F.adaptive_avg_pool3d(features, cells))

    def test_backbone_without_words(self, small, tmp_path):
        backbone = small().backbone
        with torch.no_grad():
            found = save_pt2(trace(backbone, [1, *EDGES]), tmp_path / "m.pt2", METADATA)(images(3))
            torch.testing.assert_close(found, backbone(images(3)))


class TestMetadata:
    @pytest.fixture
    def describe(self, tmp_path, bundle_root):
        def run(*overlays: str, network: nn.Module | None = None, **options) -> dict:
            parser = ConfigParser()
            parser.read_config([str(CONFIGS / name) for name in ("inference.yaml", *overlays)])
            parser.update({"bundle_root": str(bundle_root), **options})
            (tmp_path / "model.pt").write_bytes(b"weights")
            return metadata_of(network or nn.Identity(), parser, tmp_path / "model.pt")

        return run

    def test_of_the_default(self, describe, bundle_root):
        metadata = describe()
        assert metadata["channels"] == ["background", *metadata["classes"]]
        assert metadata["classes"][0] == "spleen"
        assert metadata["roi_size"] == [64, 32, 32]
        assert metadata["spacing"] == [4.0, 6.0, 8.0]
        assert metadata["words"] is None
        # sha256sum of a file that holds "weights"
        assert metadata["checkpoint_sha256"].startswith("9a129038")
        assert json.loads(json.dumps(metadata)) == metadata

    def test_overlapping_regions_have_no_background(self, describe):
        metadata = describe(softmax=False)
        assert metadata["channels"] == metadata["classes"]

    def test_words_and_their_digest(self, describe, make_network, table):
        words = describe(network=make_network())["words"]
        assert words["digest"] == table.digest
        assert words["sentences"]["liver"] == {"shape": "A wedge.", "location": "Top right."}

    @pytest.mark.parametrize("overlay", sorted(path.name for path in CONFIGS.glob("dataset_*.yaml")))
    def test_preprocessing_of_every_data_set_needs_monai_alone(self, describe, overlay):
        metadata = describe(overlay)
        assert "scripts." not in json.dumps(metadata["preprocessing"])
        names = [type(t).__name__ for t in ConfigParser(metadata).get_parsed_content("preprocessing").transforms]
        assert names[:3] == ["LoadImaged", "Orientationd", "Spacingd"]
        assert len(names) > 3

    def test_own_transform_leaves_the_preprocessing_out_and_says_so(self, describe, caplog):
        metadata = describe(intensity=[{"_target_": "scripts.data.transforms.Mine", "keys": "image"}])
        assert metadata["preprocessing"] is None
        assert "scripts.data.transforms.Mine is no transform of MONAI" in caplog.text


class TestCommand:
    @pytest.fixture
    def stand_ins(self, monkeypatch, tmp_path, table):
        """`export_model` up to what is written, with a network that returns zeros and an export that does not."""
        parser = ConfigParser({"network_def": None, "ckpt_path": str(tmp_path / "model.pt")})
        monkeypatch.setattr(export, "_configuration", lambda files, overrides: parser)
        monkeypatch.setattr(export, "load_model", lambda network, path: network)
        monkeypatch.setattr(export, "metadata_of", lambda *_: METADATA)
        monkeypatch.setattr(export, "trace", lambda network, shape: None)
        monkeypatch.setattr(parser, "get_parsed_content", {"network_def": torch.zeros_like, "ckpt_path": "m"}.get)

        def returning(value: float) -> None:
            def save(program, path, metadata):
                path.write_text("exported")
                return lambda image: torch.full_like(image, value)

            monkeypatch.setattr(export, "save_pt2", save)

        return returning

    def test_writes_what_agrees(self, stand_ins, tmp_path, capsys):
        stand_ins(0.0005)
        assert export_model(tmp_path / "new" / "m.pt2") == tmp_path / "new" / "m.pt2"
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.pt2"]
        assert "5.0e-04" in capsys.readouterr().out

    def test_writes_nothing_that_disagrees(self, stand_ins, tmp_path):
        stand_ins(0.002)
        with pytest.raises(RuntimeError, match=r"by 2\.0e-03, more than the tolerance of 1\.0e-03; .*m\.pt2 was not"):
            export_model(tmp_path / "m.pt2")
        assert list(tmp_path.iterdir()) == []

    def test_writes_nothing_that_is_not_a_number(self, stand_ins, tmp_path):
        stand_ins(float("nan"))
        with pytest.raises(RuntimeError, match="was not written"):
            export_model(tmp_path / "m.pt2")

    def test_replaces_only_when_asked(self, stand_ins, tmp_path):
        stand_ins(0.0)
        output = tmp_path / "m.pt2"
        output.write_text("old")
        with pytest.raises(FileExistsError, match=r"m\.pt2 exists.*set `overwrite`"):
            export_model(output)
        assert output.read_text() == "old"
        export_model(output, overwrite=True)
        assert output.read_text() == "exported"

    def test_other_ending_raises(self, tmp_path):
        with pytest.raises(ValueError, match=r"\.pt2 or \.onnx; found 'model\.ts'"):
            export_model(tmp_path / "model.ts")

    def test_absent_packages_are_named(self, tmp_path, monkeypatch):
        there = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else there(name))
        with pytest.raises(ModuleNotFoundError, match="`pip install onnx onnxscript onnxruntime`"):
            export_model(tmp_path / "m.onnx")

    def test_misspelt_option_raises(self, tmp_path):
        with pytest.raises(ValueError, match=r"unknown key 'ckpt_pth'.*'ckpt_path'"):
            export_model(tmp_path / "m.pt2", str(CONFIGS / "inference.yaml"), ckpt_pth="model.pt")


class TestOnnxNetwork:
    @pytest.fixture
    def write(self, tmp_path):
        """Write an ONNX file whose logits are the image and its negative; its path."""
        onnx = pytest.importorskip("onnx", reason=WITHOUT_ONNX)
        pytest.importorskip("onnxruntime", reason=WITHOUT_ONNX)

        def run(metadata: dict | None = METADATA) -> Path:
            tensor = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
            nodes = [
                onnx.helper.make_node("Neg", ["image"], ["negative"]),
                onnx.helper.make_node("Concat", ["image", "negative"], ["logits"], axis=1),
            ]
            graph = onnx.helper.make_graph(
                nodes,
                "stand_in",
                [tensor("image", shape=["batch", 1, *EDGES])],
                [tensor("logits", shape=["batch", 2, *EDGES])],
            )
            model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
            if metadata is not None:
                onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
            onnx.save(model, tmp_path / "model.onnx")
            return tmp_path / "model.onnx"

        return run

    @pytest.mark.parametrize("batch", [1, 2, 3])
    def test_returns_the_logits(self, write, batch):
        found = OnnxNetwork(write())(images(batch))
        assert torch.equal(found, torch.cat([images(batch), -images(batch)], dim=1))

    def test_works_in_a_sliding_window(self, write):
        volume = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 40, 33, 20))).float()
        inferer = SlidingWindowInferer(EDGES, sw_batch_size=3, overlap=0.25)
        found = inferer(volume, OnnxNetwork(write()).eval())
        torch.testing.assert_close(found, torch.cat([volume, -volume], dim=1))

    def test_half_precision_images_are_taken(self, write):
        assert OnnxNetwork(write())(images(1).half()).dtype == torch.float32

    def test_other_classes_raise_naming_both(self, write):
        with pytest.raises(ValueError, match=r"exported with classes \['spleen'\]; the configuration has \['liver'\]"):
            OnnxNetwork(write(), class_names=("liver",))

    def test_other_roi_raises(self, write):
        with pytest.raises(ValueError, match=r"roi_size \[32, 32, 32\]; the configuration has \[64, 64, 32\]"):
            OnnxNetwork(write(), class_names=("spleen",), roi_size=(64, 64, 32))

    def test_image_of_another_size_raises(self, write):
        with pytest.raises(ValueError, match=r"takes batches of \[1, 32, 32, 32\].*found shape \[1, 1, 64, 32, 32\]"):
            OnnxNetwork(write())(torch.zeros(1, 1, 64, 32, 32))

    def test_absent_file_raises(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"m\.onnx does not exist. Write it with `export_model`"):
            OnnxNetwork(tmp_path / "m.onnx")

    def test_file_of_other_content_raises(self, tmp_path):
        pytest.importorskip("onnxruntime", reason=WITHOUT_ONNX)
        (tmp_path / "m.onnx").write_text("no graph")
        with pytest.raises(ValueError, match="is not an ONNX file that ONNX Runtime can read"):
            OnnxNetwork(tmp_path / "m.onnx")

    def test_file_of_others_raises(self, write):
        with pytest.raises(ValueError, match="does not say what it segments"):
            OnnxNetwork(write(metadata=None))

    def test_absent_provider_raises(self, write):
        with pytest.raises(ValueError, match=r"none of the providers \['NoSuchProvider'\]"):
            OnnxNetwork(write(), providers=["NoSuchProvider"])

    def test_absent_runtime_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "m.onnx").touch()
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ModuleNotFoundError, match="`pip install onnxruntime`"):
            OnnxNetwork(tmp_path / "m.onnx")

    def test_describes_itself(self, write, capsys):
        assert describe_export(write()) == METADATA
        assert json.loads(capsys.readouterr().out) == METADATA


def test_describe_reads_a_program(small, tmp_path):
    save_pt2(trace(small().backbone, [1, *EDGES]), tmp_path / "m.pt2", METADATA)
    assert describe_export(tmp_path / "m.pt2") == METADATA


def test_describe_refuses_what_is_no_program(tmp_path):
    (tmp_path / "m.pt2").write_text("no program")
    with pytest.raises(ValueError, match=r"m\.pt2 is not a program"):
        describe_export(tmp_path / "m.pt2")
