"""Inference requests of an annotation server: other words and classes for one image, samples for an uncertainty."""

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
from scripts.words.checks import find_name
from scripts.words.lines import words_text
from scripts.words.requested import requested_table, unknown_classes
from scripts.words.table import ConceptTable

__all__ = ["RequestInferer", "RequestedWordsd", "request_options"]

logger = logging.getLogger(__name__)

WORDS = "words of "
"""How the name of an option begins that holds the words of a class."""
FURTHER = "further classes"
CLASSES = "classes"
REQUEST = "requested words"
"""Where the table of a request stands in the metadata of its image."""
RESULT = "result"
"""The entry of a case that MONAI Label hands to the client beside the mask."""


def request_options(concepts: ConceptTable, **options: Any) -> dict[str, Any]:
    """Return the options that MONAI Label lists for the model, by name.

    "words of <class>": the words of a class, as one line. "classes": which are to be segmented, between semicolons,
    labels 1, 2, ...; empty for all. "further classes": "<name> = <words>", one a line, classes that the table does not
    have.

    Args:
        concepts: the table that the network reads.
        options: further options; MONAI Label also puts the texts of a request here, in the place of the table's.
    """
    words = {f"{WORDS}{class_name}": words_text(concepts, class_name) for class_name in concepts.classes}
    return {**words, CLASSES: "", FURTHER: "", **options}


class RequestedWordsd(MapTransform):
    """Transform that moves the words and classes of a request into the image's metadata, for `RequestInferer`.

    MONAI Label gives a request's options to the transforms, as entries beside the image, and only the image to the
    inferer. The words travel in its metadata, so that they hold for this image and no other. Where they change which
    classes there are, the case also gets what the client is told beside the mask: the label of each class, and which
    classes the table does not have. A case without such options is handed on as it is.

    Args:
        keys: the image, a MetaTensor.
        concepts: the table that the network reads.

    Raises:
        ValueError: options that cannot be read, as for `requested_table`.
    """

    def __init__(self, keys: KeysCollection, concepts: ConceptTable) -> None:
        super().__init__(keys)
        self.concepts = concepts

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        options = {str(name): value for name, value in case.items()}
        words = {name.removeprefix(WORDS): text for name, text in options.items() if name.startswith(WORDS)}
        further = _further(options.get(FURTHER) or "")
        classes = [name.strip() for name in str(options.get(CLASSES) or "").split(";") if name.strip()]
        for name in words:
            find_name(name, self.concepts.classes, "class", self.concepts.source)
        table = requested_table(self.concepts, {**words, **further}, classes or None)
        if table is not self.concepts:
            for key in self.keys:
                case[key].meta[REQUEST] = table
        if table.classes != self.concepts.classes:
            unseen = unknown_classes(table, dict(zip(self.concepts.classes, self.concepts.sentences, strict=True)))
            case[RESULT] = {"classes": {name: n for n, name in enumerate(table.classes, 1)}, "not learnt": unseen}
        return case


def _further(text: str) -> dict[str, str]:
    """Read '<name> = <words>', one class a line."""
    found = {}
    for line in filter(str.strip, text.splitlines()):
        name, sign, words = line.partition("=")
        if not sign or not name.strip() or not words.strip():
            raise ValueError(f"'{FURTHER}' has the line '{line.strip()[:60]}'; expected '<name> = <words>'.")
        found[name.strip()] = words.strip()
    return found


class RequestInferer(Inferer):
    """Inferer that reads other words for one image, and samples a network that is in training mode.

    Words that came with the image (see `RequestedWordsd`) are read by a network that shares the given network's
    weights; the given one keeps its own, also where another request runs at the same time.

    A network in training mode is asked for one sample of its predictions, as for epistemic scoring by MONAI Label:
    probabilities under the dropout of BiFusion, everything else as in evaluation. They are marked, so that
    `NativeLabelsd` leaves them.

    Args:
        inferer: does the work, such as a sliding window.
        softmax: probabilities are a softmax where classes exclude each other, else a sigmoid.

    Raises:
        ValueError: at a call, words for a network that reads none; other classes for one with a channel for each.
    """

    def __init__(self, inferer: Callable[..., Any], *, softmax: bool = True) -> None:
        super().__init__()
        self.inferer = inferer
        self.softmax = softmax

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run the wrapped inferer on images B x in_channels x H x W x D and return its result."""
        requested = inputs.meta.get(REQUEST) if isinstance(inputs, MetaTensor) else None
        sampled = isinstance(network, nn.Module) and network.training
        network = _sampler(network) if sampled else network
        if requested is not None:
            network = _reading(network, requested)
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
