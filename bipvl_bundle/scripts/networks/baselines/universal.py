"""Universal and MulModSeg: the text vector of a class makes the weights of its own head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from scripts.networks.baselines.frozen_texts import FrozenTexts, ReadsFrozenTexts
from scripts.networks.baselines.swin_features import SwinFeatures
from scripts.words.table import ConceptTable

HIDDEN = 8
KERNELS = ((HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (1, HIDDEN))
"""Output and input channels of the three layers of a class's head."""
WIDTH = 256


class Universal(ReadsFrozenTexts):
    """CLIP-driven Universal Model, and MulModSeg, which gives it a text for each modality.

    A class's vector t, from a frozen text encoder, and the image's mean state v of the bottleneck make all weights of
    that class's head: theta = W [v; ReLU(A t)] + b, three 1^3 convolutions 8 to 8 to 8 to 1 on the decoder's features.
    They belong to one image and one class.

    ``forward`` returns the logits, B x C x H x W x D, C the classes and, with ``softmax``, the background first. The
    number of parameters does not depend on C: 62,595,315 with Swin UNETR 48 and vectors of 512.

    A network reads the texts of the modality of its concept table; ``forward(image, modality)`` reads another row.

    Deviations:
        - theta starts as an ordinary head, by He's initialisation in b, and W small: weights that are unbounded
          functions of the image would otherwise start anywhere.
        - Of MulModSeg the network; training by CT and MR in turns is a matter of a sampler, which is not here.

    Of the published code: Universal's Dice loss is computed slice by slice, and since 2024 cannot run at all (see
    ``MarginalSigmoidLoss``); its schedule skips its first value; an organ's name is misspelt. MulModSeg takes the
    modality of a batch from its first image, and an unknown one ends in an error about shapes.

    Args:
        backbone: gives the features.
        concepts: the words, one class a foreground channel, in label order.
        text_encoder: see ``FrozenTexts``, which has the other arguments too.
        prompt: of each class.
        modalities: of the table of texts; that of the concepts if None.
        softmax: True where classes exclude each other, which makes the background a class with a prompt of its own.
        text_width: of a vector, where there is no text encoder.

    Raises:
        FileNotFoundError: the text encoder is not there.
        ValueError: as for ``FrozenTexts``; in ``forward``, a modality that the table has not, or an image that the
            backbone refuses.

    Source:
        Liu et al., "CLIP-Driven Universal Model for Organ Segmentation and Tumor Detection" (2023); Li et al.,
        "MulModSeg" (2025).
    """

    def __init__(
        self,
        backbone: SwinFeatures,
        concepts: ConceptTable,
        text_encoder: str | None,
        *,
        prompt: str = "A computerized tomography of a {name}.",
        modalities: Sequence[str] | None = None,
        softmax: bool = True,
        text_width: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.texts = FrozenTexts(
            concepts, text_encoder, prompt=prompt, background=softmax, modalities=modalities, width=text_width
        )
        deepest, channels = backbone.widths[0], backbone.channels
        self.describe_image = nn.Sequential(
            _group_norm(deepest), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Conv3d(deepest, WIDTH, 1), nn.Flatten()
        )
        self.describe_class = nn.Sequential(nn.Linear(self.texts.frozen_texts.shape[-1], WIDTH), nn.ReLU())
        self.reduce = nn.Sequential(_group_norm(channels), nn.ReLU(), nn.Conv3d(channels, HIDDEN, 1))
        self.controller = nn.Linear(2 * WIDTH, sum(math.prod(shape) + shape[0] for shape in KERNELS))
        self._start_as_an_ordinary_head()

    def _start_as_an_ordinary_head(self) -> None:
        nn.init.normal_(self.controller.weight, std=0.01)
        nn.init.zeros_(self.controller.bias)
        count = sum(math.prod(shape) for shape in KERNELS)
        with torch.no_grad():
            self.controller.bias[:count].normal_(std=math.sqrt(2 / HIDDEN))

    def forward(self, image: Tensor, modality: int | None = None) -> Tensor:
        """Segment a batch of images (B x in_channels x H x W x D)."""
        features = self.backbone(image)
        parameters = self.controller(self._class_vectors(features.states[0], modality))
        return dynamic_head(self.reduce(features.full), parameters)

    def _class_vectors(self, state: Tensor, modality: int | None) -> Tensor:
        """Image and class, side by side: B x C x 2 WIDTH."""
        row = self.texts.modality if modality is None else modality
        if not 0 <= row < len(self.texts.modalities):
            raise ValueError(f"There is no modality {row}; the texts are of {list(enumerate(self.texts.modalities))}.")
        classes = self.describe_class(self.texts.frozen_texts[row])
        images = self.describe_image(state)
        pair = (images[:, None].expand(-1, len(classes), -1), classes[None].expand(len(images), -1, -1))
        return torch.cat(pair, dim=-1)


def dynamic_head(features: Tensor, parameters: Tensor) -> Tensor:
    """Run each class's three 1^3 convolutions, with ReLU between them, on the features of its image.

    Args:
        features: B x 8 x H x W x D
        parameters: the weights of the three layers and then their biases, B x C x 153

    Returns:
        logits, B x C x H x W x D
    """
    batch, classes = parameters.shape[:2]
    sizes = [math.prod(shape) for shape in KERNELS] + [shape[0] for shape in KERNELS]
    weights, biases = (parts for parts in (parameters.split(sizes, -1)[:3], parameters.split(sizes, -1)[3:]))
    hidden = features.flatten(2)
    for n, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        outputs, inputs = KERNELS[n]
        kernel = rearrange(weight, "b n (o i) -> (b n) o i", o=outputs, i=inputs)
        hidden = hidden.repeat_interleave(classes, dim=0) if n == 0 else hidden.relu()
        hidden = torch.baddbmm(rearrange(bias, "b n o -> (b n) o 1"), kernel, hidden)
    return cast(Tensor, hidden.view(batch, classes, *features.shape[2:]))


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(16, channels), channels)
