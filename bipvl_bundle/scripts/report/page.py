"""A page: sections of text, tables and figures, written as one HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from scripts.whole_file import write_text

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; `is_text` sets all columns to the left."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_text: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure as PNG in base 64, what it shows in words, and the case of the viewer that it links to."""

    png: str
    alt: str
    caption: str
    case: str = ""


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, as a relative address."""

    href: str
    text: str


@dataclass
class Section:
    """A part of a page with a heading."""

    id: str
    title: str
    text: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Picture] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.text or self.remarks or self.tables or self.figures or self.links)


@dataclass(frozen=True)
class Page:
    """A page with a viewer where there are cases for it.

    Attributes:
        title: of the page.
        sections: its parts.
        files: name of the folder beside it.
        cases: what the viewer must know of each (`write_viewer_case`), with a "title".
        classes: name and colour of each (`legend`).
    """

    title: str
    sections: Sequence[Section]
    files: str
    cases: Sequence[Mapping[str, Any]] = ()
    classes: Sequence[Mapping[str, str]] = ()


def picture(figure: Figure, alt: str, caption: str, case: str = "", dpi: int = 90) -> Picture:
    """Return a Matplotlib figure as a picture of a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    return Picture(base64.b64encode(buffer.getvalue()).decode(), alt, caption, case)


def write_page(path: Path, page: Page) -> None:
    """Write a page whole or not at all. All text in it is escaped.

    Raises:
        OSError: the file cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    write_text(path, environment.get_template("page.html.j2").render(page=page))
