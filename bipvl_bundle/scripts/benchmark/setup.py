"""One benchmark setup: a BiPVL-Seg of a given size, its backbone, and the configuration that trains them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.networks.nets import SwinUNETR
from torch import Tensor, nn

from scripts.benchmark.inputs import BUNDLE, concepts_for
from scripts.networks.backbones.swin_unetr import SwinUNETRBackbone
from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.networks.text_encoder import StagedTextEncoder

PLAIN, GUIDED = "backbone", "BiPVL-Seg"
PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class Setup:
    """Settings of one benchmark comparison; all are numbers or strings, so that another process can receive them.

    Args:
        text_encoder: a folder in Hugging Face format; its configuration and tokenizer are used, with random
            weights.
        stage_layers: adds up to the text encoder's layers.
        classes: N foreground classes, which exclude each other.
        roi: edge of a patch, in voxels.
        feature_size: of Swin UNETR, and so are the next two.
        window_size: edge of its windows, in tokens.
        depth: blocks of each of its stages.
        batch: patches in a batch.
        use_checkpoint: whether it computes its encoder again in the backward pass.
        recompute: whether the text encoder does so with its layers.
        device: as PyTorch names it.
        precision: fp32, tf32 (NVIDIA GPUs) or bf16 (autocast).
        threads: of the CPU; 0 leaves the choice to PyTorch.

    Raises:
        ValueError: a precision that there is not, or not on this device; no GPU; a number below 1.
    """

    text_encoder: str
    stage_layers: tuple[int, ...] = (6, 2, 2, 2)
    classes: int = 15
    roi: int = 96
    feature_size: int = 48
    window_size: int = 7
    depth: int = 2
    batch: int = 1
    use_checkpoint: bool = False
    recompute: bool = False
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 0

    def __post_init__(self) -> None:
        kind = torch.device(self.device).type
        if self.precision not in PRECISIONS:
            raise ValueError(f"`precisions` are {', '.join(PRECISIONS)}; found '{self.precision}'.")
        if self.precision == "tf32" and kind != "cuda":
            raise ValueError(f"tf32 is a precision of NVIDIA GPUs; on '{self.device}' choose fp32 or bf16.")
        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"PyTorch finds no GPU here; take '{self.device}' out of `devices`.")
        for name in ("classes", "roi", "feature_size", "window_size", "depth", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; found {getattr(self, name)}.")

    @property
    def setting(self) -> str:
        """Short text of all settings but the number of classes."""
        words = [f"{self.roi}^3", f"feature size {self.feature_size}", f"batch {self.batch}", self.precision]
        words += ["use_checkpoint"] * self.use_checkpoint + ["recompute"] * self.recompute
        return ", ".join([*words, *([] if self.device == "cpu" else [self.device])])

    def prepare(self) -> None:
        """Set threads, seed and TF32 of this process."""
        torch.manual_seed(0)
        if self.threads:
            torch.set_num_threads(self.threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context of forward and loss, as in MONAI's trainer and evaluator."""
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)

    def backbone(self) -> SwinUNETRBackbone:
        """Build the plain backbone."""
        network = SwinUNETR(
            in_channels=1,
            out_channels=self.classes + 1,
            feature_size=self.feature_size,
            window_size=self.window_size,
            depths=(self.depth,) * 4,
            use_checkpoint=self.use_checkpoint,
        )
        return SwinUNETRBackbone(network).to(self.device)

    def guided(self, backbone: SwinUNETRBackbone) -> BiPVLSeg:
        """Build a BiPVL-Seg around a backbone, sharing its weights."""
        encoder = StagedTextEncoder(
            self.text_encoder, stage_layers=self.stage_layers, pretrained=False, recompute=self.recompute
        )
        return BiPVLSeg(backbone, encoder, concepts_for(self.classes)).to(self.device)

    def networks(self) -> dict[str, nn.Module]:
        """Build both networks by name; the plain one is the backbone of the other."""
        backbone = self.backbone()
        return {PLAIN: backbone, GUIDED: self.guided(backbone)}

    def patch(self) -> tuple[Tensor, Tensor]:
        """Return a batch of noise and block-shaped labels, both B x 1 x roi^3."""
        edge = self.roi
        coarse = torch.randint(self.classes + 1, (self.batch, 1, *[-(-edge // 8)] * 3))
        label = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3).repeat_interleave(8, 4)
        image = torch.randn(self.batch, 1, edge, edge, edge)
        return image.to(self.device), label[..., :edge, :edge, :edge].float().to(self.device)

    def configuration(self, entry: str, **changes: Any) -> ConfigParser:
        """Load an entry file of the bundle with AMOS22's preprocessing for these classes and sizes.

        Args:
            entry: train.yaml or inference.yaml
            changes: further keys and their values
        """
        parser = ConfigParser()
        parser.read_config([str(BUNDLE / "configs" / name) for name in (entry, "dataset_amos22.yaml")])
        settings = {
            "bundle_root": str(BUNDLE),
            "device": torch.device(self.device),
            "concept_table": concepts_for(self.classes),
            "roi_size": [self.roi] * 3,
            "amp": self.precision == "bf16",
            "num_workers": 0,
        }
        parser.update({**settings, **changes})
        return parser
