"""Colours of classes, told apart by most readers with a colour vision deficiency."""

from __future__ import annotations

from matplotlib.colors import hsv_to_rgb, to_hex

OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
"""Okabe and Ito (2008), without black."""
FURTHER = (
    *("#663300", "#66FFFF", "#0000FF", "#333399", "#006666", "#99CC99", "#9966FF", "#66FF99"),
    *("#99CCFF", "#CC0033", "#336600", "#CC33CC", "#6699FF", "#00CCCC", "#CCCC66", "#CC0099", "#FFFF00"),
    *("#CCFFCC", "#CC0066", "#663366", "#CC66CC", "#FF6633", "#9933FF", "#FF3366", "#0000CC"),
)
"""Well apart (OKLab) from those before it, to normal vision and to simulated protanopia and deuteranopia."""
GOLDEN = 0.618034


def class_colours(count: int) -> list[str]:
    """Return a hexadecimal colour for each of `count` classes, well apart up to 32; beyond, hues go round."""
    fixed = (*OKABE_ITO, *FURTHER)
    beyond = ((i * GOLDEN % 1, (0.9, 0.5)[i % 2], (1.0, 0.7, 0.85)[i % 3]) for i in range(max(count - len(fixed), 0)))
    return [*fixed[:count], *(to_hex(tuple(hsv_to_rgb(hue))) for hue in beyond)]
