"""Pages and pictures must not cost the result that they show."""

from __future__ import annotations

import logging
from collections.abc import Callable

from scripts.messages.phrases import first_lines

logger = logging.getLogger(__name__)


def or_warn(what: str, do: Callable[[], object]) -> None:
    """Do something; if it fails, log a warning that begins with `what` and go on."""
    try:
        do()
    except Exception as error:  # of whatever kind
        logger.warning("%s: %s: %s", what, type(error).__name__, first_lines(error, 2))
        logger.debug("", exc_info=True)
