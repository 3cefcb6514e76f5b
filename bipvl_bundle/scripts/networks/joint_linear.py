"""Linear layers of one input, computed in one matrix product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.networks.kept import Kept


class JointLinear:
    """Applies several linear layers to one input by a single matrix product, the layers staying as they are.

    Queries, keys and values of an attention are three small products of the same tokens; on a GPU starting them takes
    longer than computing them. Their weights are stacked at each call in training, and once in evaluation (``Kept``).
    """

    def __init__(self) -> None:
        self._kept = Kept()

    def __call__(self, tokens: Tensor, *layers: nn.Linear) -> Tensor:
        """Return the outputs of the layers, all with a bias, one behind the other: ... x the sum of their channels.

        Args:
            tokens: ... x C
            layers: from C channels to any number.
        """
        if torch.compiler.is_exporting():  # an exported program cannot keep the stacked weights
            return torch.cat([layer(tokens) for layer in layers], dim=-1)
        weight, bias = self._kept.get("stacked", layers, lambda: _stacked(layers))
        return F.linear(tokens, weight, bias)


def _stacked(layers: tuple[nn.Linear, ...]) -> tuple[Tensor, Tensor]:
    return torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
