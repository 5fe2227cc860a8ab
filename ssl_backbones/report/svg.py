"""Figures of matplotlib as SVG within a page: coloured by the page's CSS, their text as text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A figure is drawn in stand-ins, which are replaced by what the page's CSS decides about, so that it is
# readable in dark and light. No colour map gives a colour as near to black as these.
INK = "#010101"
_RUN = "#0102{:02x}"

NUM_COLOURS = 8  # that the style sheet defines as --run-0 and so on
DASHES = ((None, None), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2), (3, 1, 1, 1, 1, 1))
"""Line patterns in units of the line's width, so that runs can be told apart without colours."""

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"


def run_colour(index: int) -> str:
    """The stand-in for the colour of a run, for matplotlib."""
    return _RUN.format(index % NUM_COLOURS)


def run_dashes(index: int) -> tuple[float | None, ...]:
    """The line pattern of a run, which is another than those of the four runs before it."""
    return DASHES[index % len(DASHES)]


@contextmanager
def figure_style() -> Iterator[None]:
    """How figures for a page are made and saved; names in them are text, never formulas."""
    import matplotlib

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "text.parse_math": False,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "grid.alpha": 0.18,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
    }
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with matplotlib.rc_context({**style, **dict.fromkeys((*inked, "grid.color"), INK)}):
        yield


def to_svg(figure: Figure, *, name: str, description: str) -> str:
    """An <svg> element to stand in HTML; call it within `figure_style`.

    Args:
        name: letters and digits, another for each figure of the page: it makes the ids in it unique.
        description: what a screen reader says in place of the picture; any text.
    """
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # Words about matplotlib, and rules that would hold in the whole page.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _adapt(element, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-label", description)
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element, name: str) -> None:
    """Make one element's ids unique, its colours the page's, and its numbers short."""
    attributes = element.attrib
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    if _LINK in attributes:
        link = attributes.pop(_LINK)
        # The others are pictures, which lie within the link.
        attributes["href"] = f"#{name}-{link[1:]}" if link.startswith("#") else link
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("url(#", f"url(#{name}-")
    if "style" in attributes:
        attributes["style"] = _themed(attributes["style"])
    for key in ("d", "x", "y", "transform"):
        if key in attributes:
            attributes[key] = re.sub(r"-?\d+\.\d+", _rounded, attributes[key])


def _themed(style: str) -> str:
    for index in range(NUM_COLOURS):
        style = style.replace(run_colour(index), f"var(--run-{index})")
    style = style.replace(INK, "currentColor")
    return re.sub(r"(font: [^;']*?px) [^;]*", r"\1 system-ui, sans-serif", style)


def _rounded(match: re.Match) -> str:
    """To a hundredth of a point, which no eye sees."""
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
