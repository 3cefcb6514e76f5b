"""Loads an exported ONNX file as a network, and reads the description in an exported file."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scripts.trust.digests import check_digest

logger = logging.getLogger(__name__)

METADATA_KEY = "bipvl_seg.json"


class OnnxNetwork(nn.Module):
    """Network that runs an exported ONNX file by ONNX Runtime, wherever MONAI takes a network.

    It has no weights of its own and cannot be trained. Images may be on any device; logits are put where the
    image is, after a detour over main memory.

    Args:
        path: an .onnx file of `export_model`.
        class_names: what the caller takes the channels for; None leaves that to the file.
        roi_size: the caller's, H x W x D voxels; None leaves it to the file.
        providers: where to run, in ONNX Runtime's names; by default on a GPU if the installed ONNX Runtime
            has one, else on the CPU.

    Attributes:
        metadata: what the file says of itself, see `scripts.export.metadata.metadata_of`.

    Raises:
        ModuleNotFoundError: ONNX Runtime is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is not an export of this bundle, or one for other classes or another ROI, or not what was
            written any more.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        roi_size: Sequence[int] | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.session = _session(self.path, providers)
        self.metadata = _metadata(self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), self.path)
        expected = {"classes": class_names, "roi_size": roi_size}
        for key, value in expected.items():
            if value is not None and list(value) != self.metadata[key]:
                raise ValueError(
                    f"{self.path} was exported with {key} {self.metadata[key]}; the configuration has {list(value)}. "
                    "Use the overlays that it was exported with, or export again."
                )

    def forward(self, image: Tensor) -> Tensor:
        """Segment a batch of images.

        Args:
            image: B x in_channels x H x W x D, any B

        Returns:
            logits, float32, B x C x H x W x D

        Raises:
            ValueError: an image of another number of channels or another size than the file is for.
        """
        shape = [self.metadata["in_channels"], *self.metadata["roi_size"]]
        if list(image.shape[1:]) != shape:
            raise ValueError(
                f"{self.path} takes batches of {shape} (channels and voxels); found shape {list(image.shape)}. Use a "
                f"sliding window with `roi_size` {shape[1:]}, or export for another one."
            )
        array = image.detach().to("cpu", torch.float32).contiguous().numpy()
        (logits,) = self.session.run(None, {"image": array})
        return torch.from_numpy(logits).to(image.device)


def describe_export(path: str | Path) -> dict[str, Any]:
    """Print and return the description in an exported file: classes, words, sizes, versions.

    Args:
        path: a .pt2 or .onnx file of `export_model`

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an export of this bundle, or not what was written any more.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        metadata = OnnxNetwork(path, providers=["CPUExecutionProvider"]).metadata
    else:
        _check_is_file(path)
        check_digest(path)
        extra = {METADATA_KEY: ""}
        try:
            torch.export.load(path, extra_files=extra)
        except Exception as error:  # what a file that is no program raises depends on its first bytes
            raise ValueError(f"{path} is not a program that torch.export can read: {error}") from error
        metadata = _metadata(extra[METADATA_KEY], path)
    print(json.dumps(metadata, indent=2, ensure_ascii=False))
    return metadata


def _session(path: Path, providers: Sequence[str] | None) -> Any:
    _check_is_file(path)
    if check_digest(path) is None:
        logger.warning("%s carries no digest: damage to it would go unnoticed. Exported anew, it has one.", path)
    try:
        runtime = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "An .onnx file is run by ONNX Runtime, which is not installed: `pip install onnxruntime`, or "
            "`pip install onnxruntime-gpu` for a GPU."
        ) from error
    wanted = providers or ("CUDAExecutionProvider", "CPUExecutionProvider")
    available = [name for name in wanted if name in runtime.get_available_providers()]
    if not available:
        raise ValueError(
            f"The installed ONNX Runtime has none of the providers {list(wanted)}, only "
            f"{runtime.get_available_providers()}. Set `providers` to some of these."
        )
    try:
        return runtime.InferenceSession(str(path), providers=available)
    except Exception as error:  # ONNX Runtime's own classes, one for each kind of fault
        raise ValueError(f"{path} is not an ONNX file that ONNX Runtime can read: {error}") from error


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"The exported network {path} does not exist. Write it with `export_model`.")


def _metadata(text: str | None, path: Path) -> dict[str, Any]:
    if not text:
        raise ValueError(f"{path} does not say what it segments: it is no export of this bundle. Use `export_model`.")
    return json.loads(text)
