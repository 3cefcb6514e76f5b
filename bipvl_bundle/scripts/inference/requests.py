"""Inference requests of an annotation server: other words for one image, and samples for an uncertainty score."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import Tensor, nn

from scripts.data.logits import PROBABILITIES
from scripts.words.lines import KEY, read_edits
from scripts.words.table import ConceptTable

__all__ = ["RequestInferer", "RequestedWordsd"]

logger = logging.getLogger(__name__)

WORDS = "words"
"""Where a request's words stand in the metadata of its image: {class: {concept: sentence}}."""


class RequestedWordsd(MapTransform):
    """Transform that moves the words of a request into the image's metadata, for `RequestInferer`.

    MONAI Label gives a request's options to the transforms, as entries beside the image, and only the image to the
    inferer. The words travel in its metadata, so that they hold for this image and no other. A case without such
    options is handed on as it is.

    Args:
        keys: the image, a MetaTensor.
        concepts: the table that the network reads.

    Raises:
        ValueError: words of an unknown class, or words that cannot be read, as for `read_edits`.
    """

    def __init__(self, keys: KeysCollection, concepts: ConceptTable) -> None:
        super().__init__(keys)
        self.concepts = concepts

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        options = {name: text for name, text in case.items() if isinstance(name, str) and name.startswith(KEY)}
        edits = read_edits(self.concepts, {name.removeprefix(KEY): text for name, text in options.items()})
        if edits:
            for key in self.keys:
                case[key].meta[WORDS] = edits
        return case


class RequestInferer(Inferer):
    """Inferer that reads other words for one image, and samples a network that is in training mode.

    Words that came with the image (see `RequestedWordsd`) are read by a network that shares the given network's
    weights; the given one keeps its own, also where another request runs at the same time.

    A network in training mode is asked for one sample of its predictions, as for epistemic scoring by MONAI Label:
    probabilities under the dropout of BiFusion, everything else as in evaluation. They are marked, so that
    `NativeLabelsd` leaves them.

    Args:
        inferer: does the work, such as a sliding window.
        concepts: the table that the network reads.
        words: other words for all images, by class: {concept: sentence}, or a text that `read_edits` reads.
        softmax: probabilities are a softmax where classes exclude each other, else a sigmoid.

    Raises:
        ValueError: words that cannot be read; at a call, words for a network that reads none.
    """

    def __init__(
        self,
        inferer: Callable[..., Any],
        concepts: ConceptTable,
        *,
        words: Mapping[str, str | Mapping[str, str]] | None = None,
        softmax: bool = True,
    ) -> None:
        super().__init__()
        self.inferer = inferer
        self.concepts = concepts.replace_sentences(read_edits(concepts, words or {}))
        self.edited = self.concepts.sentences != concepts.sentences
        self.softmax = softmax

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run the wrapped inferer on images B x in_channels x H x W x D and return its result."""
        edits = inputs.meta.get(WORDS, {}) if isinstance(inputs, MetaTensor) else {}
        sampled = isinstance(network, nn.Module) and network.training
        network = _sampler(network) if sampled else network
        if edits or self.edited:
            network = _reading(network, self.concepts.replace_sentences(edits))
        logits = self.inferer(inputs, network, *args, **kwargs)
        return self._sample(logits) if sampled else logits

    def _sample(self, logits: Tensor) -> MetaTensor:
        probabilities = MetaTensor(logits.softmax(1) if self.softmax else logits.sigmoid())
        probabilities.meta[PROBABILITIES] = True
        return probabilities


def _reading(network: Callable[..., Any], concepts: ConceptTable) -> nn.Module:
    with_concepts = getattr(network, "with_concepts", None)
    if with_concepts is None:
        raise ValueError(
            f"Other words were given, but a {type(network).__name__} reads none, or has them built in; leave the "
            "words as they are, or use a BiPVL-Seg."
        )
    logger.info("Other words than those of %s are read.", concepts.source)
    return with_concepts(concepts)


def _sampler(network: Any) -> nn.Module:
    """Return the network in evaluation mode except for the dropout of BiFusion.

    It has the given one's weights; the given one stays marked as one to sample from.
    """
    fusions = getattr(network, "fusions", None)
    for child in network.children():
        child.train(child is fusions)
    sampler = copy.copy(network)
    sampler.training = False
    return sampler
