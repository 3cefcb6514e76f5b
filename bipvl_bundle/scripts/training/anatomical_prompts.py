"""Anatomical prompts of CAT: what each structure looks like in the training cases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from torch import Tensor

from scripts.networks.baselines.cat import CAT
from scripts.networks.wrapping import unwrap

logger = logging.getLogger(__name__)

CELLS = 1e-3  # of a cell of the deepest state, below which a structure is not in it


class AnatomicalPrompts:
    """Ignite handler that fills the ``anatomy`` of a CAT from the training cases; attach it to the trainer.

    Each structure is cut out of a case with a margin, resampled to the network's patch, and read by the backbone; the
    prompt of its class is the mean of the deepest state over the structure, then over the cases. They are made in the
    first epoch, and again in those of ``epochs``, since a backbone that has not learnt yet describes little. The
    network's state keeps them, so that a resumed or a trained one has them.

    Args:
        network: a `CAT` with ``anatomical``.
        items: training cases with image and label; validation and test cases have no part in the prompts.
        transform: preprocessing without anything random.
        roi_size: three edges that the backbone can divide.
        epochs: in which they are made, the first one in any case.
        cases: how many of the items are read.
        margin: around a structure, as a share of its extent.

    Raises:
        TypeError: the network is no CAT with anatomical prompts.
        ValueError: at the start, a class that no case shows.
    """

    def __init__(
        self,
        network: Any,
        items: Sequence[Any],
        transform: Callable[[Any], Mapping[str, Tensor]],
        *,
        roi_size: Sequence[int],
        epochs: Sequence[int] = (1, 10),
        cases: int = 20,
        margin: float = 0.2,
    ) -> None:
        if not isinstance(unwrap(network), CAT) or not unwrap(network).anatomical:
            raise TypeError(
                f"Anatomical prompts are CAT's; found a {type(unwrap(network)).__name__}. Put baseline_cat.yaml into "
                "the list of config files before this one, and leave `anatomical` at true."
            )
        self.network: CAT = unwrap(network)
        self.items = list(items)[:cases]
        self.transform = transform
        self.roi_size = tuple(roi_size)
        self.epochs = {1, *epochs}
        self.margin = margin

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.epoch in self.epochs:
            self.make()

    @torch.no_grad()
    def make(self) -> None:
        """Fill the network's prompts."""
        training = self.network.training
        self.network.eval()
        sums, counts = torch.zeros_like(self.network.anatomy), torch.zeros(len(self.network.anatomy))
        for item in self.items:
            case = self.transform(item)
            image, label = (torch.as_tensor(case[key]).as_subclass(Tensor).float() for key in ("image", "label"))
            for channel, mask in self._masks(label):
                sums[channel] += self._describe(image, mask)
                counts[channel] += 1
        self.network.train(training)
        absent = [n for n, count in enumerate(counts.tolist()) if not count]
        if absent:
            names = ["background"] * self.network.roles.background + list(self.network.concepts.classes)
            raise ValueError(
                f"None of {len(self.items)} training cases shows {', '.join(names[n] for n in absent)}: there is "
                "nothing to make its anatomical prompt of. Raise `cases`, or train with `anatomical` false."
            )
        self.network.anatomy.copy_(sums / counts[:, None].to(sums))
        logger.info("Made the anatomical prompts of %d classes from %d training cases.", len(counts), len(self.items))

    def _masks(self, label: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield each channel that a label shows with its mask, H x W x D."""
        for channel in range(len(self.network.anatomy)):
            mask = label[0] == channel if self.network.roles.background else label[channel] > 0
            if mask.any():
                yield channel, mask

    def _describe(self, image: Tensor, mask: Tensor) -> Tensor:
        """The mean of the deepest state over a structure, as wide as it is."""
        box = (slice(None), *(self._extent(mask, axis) for axis in range(3)))
        device = self.network.anatomy.device
        crop = F.interpolate(image[box][None].to(device), size=self.roi_size, mode="trilinear", align_corners=False)
        inside = F.interpolate(mask[box[1:]][None, None].to(crop), size=self.roi_size, mode="nearest")
        state = self.network.backbone(crop).states[0][0]
        weights = F.adaptive_avg_pool3d(inside, state.shape[1:])[0, 0].clamp(min=CELLS)
        return (state * weights).sum(dim=(1, 2, 3)) / weights.sum()

    def _extent(self, mask: Tensor, axis: int) -> slice:
        others = [other for other in range(3) if other != axis]
        found = mask.any(dim=others[1]).any(dim=others[0]).nonzero().flatten()
        first, last = int(found[0]), int(found[-1]) + 1
        rim = round(self.margin * (last - first)) + 1
        return slice(max(first - rim, 0), min(last + rim, mask.shape[axis]))
