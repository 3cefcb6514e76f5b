"""The command `export_model`: writes a trained network as .pt2 or .onnx, without this code and transformers."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ReferenceResolver
from monai.utils import ensure_tuple
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from scripts.configuration.check import check_config
from scripts.export.fixed_words import FixedWords
from scripts.export.metadata import metadata_of
from scripts.export.network import METADATA_KEY, OnnxNetwork
from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.training.checkpoints import load_model
from scripts.trust.digests import add_digest

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
BATCHES = (1, 2)

Run = Callable[[Tensor], Tensor]


def export_model(
    output: str | Path,
    config_file: str | Sequence[str] = "configs/inference.yaml",
    *,
    ckpt_path: str | Path | None = None,
    overwrite: bool = False,
    tolerance: float = 1.0e-3,
    **overrides: Any,
) -> Path:
    """Export a network with the weights of a checkpoint and the words of its table.

    Run it in the bundle's folder. The file takes float32 images of `roi_size` in batches of any size and returns
    logits. Before it gets its name it is loaded and compared with the network, on batches of 1 and 2.

    Args:
        output: a file name that ends in .pt2 (a program of `torch.export`) or .onnx
        config_file: inference.yaml, or a list of it and the overlays that the model was trained with
        ckpt_path: the trained model; by default that of the configuration
        overwrite: replace an existing file
        tolerance: largest difference from the network's logits, as a share of the largest logit or of 1, whichever
            is more
        overrides: options as for `monai.bundle run`

    Raises:
        ValueError: another ending; an unknown key in the configuration; a checkpoint of another network or other
            classes.
        FileExistsError: `output` exists and `overwrite` is not set.
        ModuleNotFoundError: a package that ONNX needs is not installed.
        RuntimeError: the exported network differs from the original by more than `tolerance`.
    """
    output = Path(output)
    save = _saver(output)
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists. Choose another `output`, or set `overwrite` to replace it.")
    parser = _configuration(config_file, {**overrides, **({"ckpt_path": str(ckpt_path)} if ckpt_path else {})})
    network = parser.get_parsed_content("network_def")
    checkpoint = Path(parser.get_parsed_content("ckpt_path"))
    load_model(network, checkpoint)
    metadata = metadata_of(network, parser, checkpoint)
    shape = [metadata["in_channels"], *metadata["roi_size"]]
    program = trace(network, shape)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export_") as folder:
        draft = Path(folder) / output.name
        difference = _largest_difference(network, save(program, draft, metadata), shape)
        if not difference <= tolerance:  # also where it is not a number
            raise RuntimeError(
                f"The exported network differs from the original by {difference:.1e}, more than the tolerance of "
                f"{tolerance:.1e}; {output} was not written. Raise `tolerance` only if the masks agree."
            )
        for part in sorted(Path(folder).iterdir(), key=lambda path: path.name == output.name):
            os.replace(part, output.parent / part.name)  # large ONNX files keep their weights in one of their own
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {', '.join(metadata['channels'])}")
    print(f"largest difference to the network, batches of {BATCHES}: {difference:.1e}")
    return output


def trace(network: nn.Module, shape: Sequence[int]) -> ExportedProgram:
    """Trace a network in evaluation into an exported program for any batch size; a ``BiPVLSeg`` keeps its words.

    Args:
        network: on the CPU; it is set to evaluation, without gradient checkpointing.
        shape: of one image, in_channels x H x W x D.
    """
    plain = (FixedWords(network) if isinstance(network, BiPVLSeg) else network).eval()
    module: Any
    for module in plain.modules():
        if getattr(module, "use_checkpoint", False):
            module.use_checkpoint = False  # it saves memory in training only
    image = torch.zeros(2, *shape)  # a batch of 1 would be taken for a fixed size
    with torch.no_grad():
        return torch.export.export(plain, (image,), dynamic_shapes=({0: Dim("batch", min=1)},))


def save_pt2(program: ExportedProgram, path: Path, metadata: dict[str, Any]) -> Run:
    """Write a .pt2 file and return the function that it computes when loaded."""
    torch.export.save(program, path, extra_files={METADATA_KEY: json.dumps(metadata)})
    add_digest(path)
    return torch.export.load(path).module()


def save_onnx(program: ExportedProgram, path: Path, metadata: dict[str, Any]) -> Run:
    """Write an .onnx file, with a second file of weights above 1.5 GB; returns the function that it computes."""
    program = program.run_decompositions({torch.ops.aten.adaptive_avg_pool3d.default: _pool_by_axis})
    converted = torch.onnx.export(
        program, dynamo=True, input_names=["image"], output_names=["logits"], verbose=False, optimize=True
    )
    assert converted is not None
    converted.model.metadata_props[METADATA_KEY] = json.dumps(metadata)
    converted.save(path)
    add_digest(path)
    return OnnxNetwork(path, providers=["CPUExecutionProvider"])


def _pool_by_axis(features: Tensor, output_size: Sequence[int]) -> Tensor:
    """Adaptive average pooling axis by axis, in operations that ONNX has."""
    for axis, cells in zip((-3, -2, -1), output_size, strict=True):
        edge = features.shape[axis]
        spans = [(i * edge // cells, -(-(i + 1) * edge // cells)) for i in range(cells)]
        means = [features.narrow(axis, start, end - start).mean(axis, keepdim=True) for start, end in spans]
        features = torch.cat(means, axis)
    return features


def _saver(output: Path) -> Callable[[ExportedProgram, Path, dict[str, Any]], Run]:
    if output.suffix == ".pt2":
        return save_pt2
    if output.suffix != ".onnx":
        raise ValueError(f"The ending of `output` says what to write, .pt2 or .onnx; found '{output.name}'.")
    absent = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise ModuleNotFoundError(
            f"Export to ONNX needs {', '.join(absent)}, which is not installed: `pip install {' '.join(absent)}`. "
            "Export to .pt2 needs nothing more."
        )
    return save_onnx


def _configuration(config_file: str | Sequence[str], overrides: dict[str, Any]) -> ConfigParser:
    files = [str(path) for path in ensure_tuple(config_file)]
    problems = check_config(files, **overrides)
    if problems:
        raise ValueError("The configuration cannot be exported:\n" + "\n".join(problems))
    parser = ConfigParser()
    parser.read_config(files)
    meta = Path(files[0]).with_name("metadata.json")
    if meta.is_file():
        parser.read_meta(str(meta))
    parser.update({ReferenceResolver.normalize_id(id): value for id, value in overrides.items()})
    return parser


@torch.no_grad()
def _largest_difference(network: nn.Module, run: Run, shape: Sequence[int]) -> float:
    generator = torch.Generator().manual_seed(0)
    differences = []
    for batch in BATCHES:
        image = torch.randn(batch, *shape, generator=generator)
        expected = network(image)
        differences.append((run(image) - expected).abs().max() / expected.abs().max().clamp(min=1.0))
    return torch.stack(differences).max().item()
