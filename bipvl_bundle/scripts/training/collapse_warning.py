"""Says when the words of a training have stopped to tell its classes apart."""

from __future__ import annotations

import logging

from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)

SIDES = {"train_cosine_text": "texts", "train_cosine_vision": "image features"}


class WarnOfCollapse:
    """Warns in the epoch in which the alignment collapses, and tells when it is back; attach it to the trainer.

    A collapse shows nowhere else: the other losses go on falling and the DSC goes on rising without the words.

    Reads the means of the epoch that ``LossTerms`` leaves in ``engine.state.metrics``, so it is attached after it.
    Without an alignment loss there is nothing to warn of.

    Args:
        limit: mean cosine between the embeddings of different classes above which they count as one.
    """

    def __init__(self, limit: float = 0.98) -> None:
        self.limit = limit
        self.collapsed = False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        metrics = engine.state.metrics
        alike = [f"{side} ({metrics[name]:.3f})" for name, side in SIDES.items() if metrics.get(name, 0.0) > self.limit]
        if alike and not self.collapsed:
            logger.warning(
                "Epoch %s: the alignment has collapsed. Different classes have the same %s (mean cosine): the words no "
                "longer tell them apart, although the segmentation may go on improving. If it stays so, start again "
                "with a lower `learning_rate` or `text_learning_rate`; see docs/method.md, Watching for collapse.",
                engine.state.epoch,
                " and ".join(alike),
            )
        if self.collapsed and not alike:
            logger.info("Epoch %s: the alignment is back, with an embedding for each class.", engine.state.epoch)
        self.collapsed = bool(alike)
