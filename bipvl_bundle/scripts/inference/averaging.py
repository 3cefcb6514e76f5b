"""Inference by several looks at an image: by other folds' models, and mirrored; probabilities are averaged."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.inferers import Inferer
from torch import Tensor, nn

from scripts.configuration.plan import require_same_plan
from scripts.inference.room import require_room
from scripts.networks.weights import read_checkpoint, record_of
from scripts.words.sentences import exchange_sides
from scripts.words.table import ConceptTable

__all__ = ["AveragingInferer", "check_ensemble"]

SMALLEST = 1e-7
"""Probability that counts as 0: its logarithm is finite."""
SIDES = 0
"""The axis of an image from right to left, where the preprocessing puts it."""


class AveragingInferer(Inferer):
    """Inferer that averages the probabilities of several models and of mirrored images.

    Where an image is mirrored from right to left, so are the words: left and right are exchanged in them for a network
    that reads words for each request; of a network with a channel a class, the channels of "left x" and "right x" are.

    The result is the logarithm of the mean probability (softmax), or its logit (sigmoid): what is a logit for all that
    follows. With one model and no axis it is the wrapped inferer's, bit by bit.

    Args:
        inferer: does the work, such as a sliding window.
        softmax: whether classes exclude each other.
        mirror_axes: 0 right to left, 1 back to front, 2 bottom to top; every combination is looked at. Only what the
            training mirrored too (`mirror_prob`, `flip_prob`) can help.
        ensemble: files of further models of the same configuration, such as those of other folds.
        like: the first model's file, whose plan the others must have.
        load: loads a file into a network, such as `load_model`; needed for an ensemble.
        out_channels: of a network that does not tell its classes; the memory that they will take is foreseen.

    Raises:
        FileNotFoundError: at the first call, a file is absent.
        ValueError: at construction, another axis; at the first call, a file is no model, or one of another
            configuration, or trained on a case that is to be unseen; at a call, memory cannot hold the logits.
    """

    def __init__(
        self,
        inferer: Callable[..., Any],
        *,
        softmax: bool = True,
        mirror_axes: Sequence[int] = (),
        ensemble: Sequence[str | Path] = (),
        like: str | Path | None = None,
        load: Callable[..., Any] | None = None,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(mirror_axes, str) or not set(mirror_axes) <= {0, 1, 2}:
            raise ValueError(
                f"`mirror_axes` lists axes out of 0 (right to left), 1 (back to front) and 2 (bottom to top); "
                f"found {mirror_axes!r}."
            )
        if isinstance(ensemble, str):
            raise ValueError(f"`ensemble` lists the files of further models; found {ensemble!r}: write it as ['...'].")
        self.inferer, self.softmax = inferer, softmax
        axes = sorted(set(mirror_axes))
        self.flips = [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]
        self.ensemble = [Path(path) for path in ensemble]
        self.like, self.load = like, load
        self.out_channels = out_channels
        self.members: list[nn.Module] | None = None

    @property
    def looks(self) -> int:
        """How many times an image is looked at."""
        return len(self.flips) * (1 + len(self.ensemble))

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return logits B x C x H x W x D of images B x in_channels x H x W x D."""
        self._require_room(inputs, network)
        if self.looks == 1:
            return self.inferer(inputs, network, *args, **kwargs)
        total: Tensor | None = None
        networks = [network, *self._others(network)]
        for member in networks:
            sides = _other_side(member, self.softmax) if any(SIDES in flip for flip in self.flips) else (member, None)
            for flip in self.flips:
                seeing, order = sides if SIDES in flip else (member, None)
                logits = self._look(inputs, seeing, flip, order, *args, **kwargs)
                found = logits.softmax(1) if self.softmax else logits.sigmoid()
                total = found if total is None else total.add_(found)
        assert total is not None
        mean = total.div_(len(networks) * len(self.flips))
        return mean.clamp_(min=SMALLEST).log_() if self.softmax else mean.logit_(eps=SMALLEST)

    def _require_room(self, inputs: Tensor, network: Any) -> None:
        concepts: ConceptTable | None = getattr(network, "concepts", None)
        channels = self.out_channels if concepts is None else len(concepts.classes) + self.softmax
        roi_size, windows = (getattr(self.inferer, name, None) for name in ("roi_size", "sw_batch_size"))
        require_room(inputs, channels or 1, looks=self.looks, roi_size=roi_size or (), windows=windows or 1)

    def _look(
        self, image: Tensor, network: Any, flip: Sequence[int], order: list[int] | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        dims = [axis + 2 for axis in flip]
        if not dims:
            return self.inferer(image, network, *args, **kwargs).float()
        logits = self.inferer(image.flip(dims), network, *args, **kwargs).flip(dims).float()
        return logits if order is None else logits[:, order]

    def _others(self, network: Any) -> Iterator[Any]:
        """Yield the other models, reading the words that the given one reads."""
        if self.members is None:
            self.members = [self._load(network, path) for path in self.ensemble]
        for member in self.members:
            concepts = getattr(network, "concepts", None)
            same = concepts is None or concepts is getattr(member, "concepts", None)
            yield member if same else member.with_concepts(concepts)  # type: ignore[operator]

    def _load(self, network: nn.Module, path: Path) -> nn.Module:
        if self.like is not None:
            check_ensemble(self.like, [path])
        assert self.load is not None
        return self.load(copy.deepcopy(network), path).eval()


def check_ensemble(like: str | Path, ensemble: Sequence[str | Path]) -> None:
    """Raise an error, before any work, if models of an ensemble cannot be averaged.

    Args:
        like: the first model's file.
        ensemble: files of the others.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a model was made with other settings; the message names the first of them, and both values.
    """
    if not ensemble:
        return
    first, *others = (record_of(read_checkpoint(file, quiet=True)).get("plan", {}) for file in (like, *ensemble))
    for path, other in zip(ensemble, others, strict=True):
        require_same_plan(first, other, f"The model {path} of `ensemble`")


def _other_side(network: Any, softmax: bool) -> tuple[Any, list[int] | None]:
    """Return a network for images whose sides are exchanged, and the order in which its channels are then wanted."""
    concepts: ConceptTable | None = getattr(network, "concepts", None)
    if getattr(network, "word_head", None) is not None:
        assert concepts is not None
        rows = tuple(tuple(exchange_sides(text) for text in row) for row in concepts.sentences)
        return network.with_concepts(replace(concepts, sentences=rows, alternatives=())), None
    if concepts is None:
        raise ValueError(
            f"A {type(network).__name__} does not tell its classes, so that its sides cannot be exchanged. Leave 0 out "
            "of `mirror_axes`."
        )
    others = [exchange_sides(name) for name in concepts.classes]
    first = int(softmax)
    places = {name: first + number for number, name in enumerate(concepts.classes)}
    return network, [
        *range(first),
        *(places.get(other, places[name]) for name, other in zip(places, others, strict=True)),
    ]
