"""Colours of classes, told apart by most readers with a colour vision deficiency."""

from __future__ import annotations

from matplotlib import colormaps
from matplotlib.colors import to_hex

OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
"""Okabe and Ito (2008), without black."""


def class_colours(count: int) -> list[str]:
    """Return a hexadecimal colour for each of `count` classes, beyond the first seven from a map of even lightness."""
    further = max(count - len(OKABE_ITO), 0)
    spread = colormaps["turbo"]
    return [*OKABE_ITO[:count], *(to_hex(spread((i + 0.5) / further)) for i in range(further))]
