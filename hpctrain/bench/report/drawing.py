"""One plot as SVG text: its style, and how it becomes part of a page. matplotlib is imported here,
when something is drawn.

In a page colours are CSS variables, so that one drawing serves light, dark and paper; in a file
of its own they are what the light page has. The palette is Okabe and Ito's (2008, "Color
Universal Design"), whose colours colour-blind people tell apart.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

# Stand-ins that the drawing has for colours: name → (stand-in, on light, on dark).
COLORS = {
    "ink": ("#010203", "#1b1f24", "#e6e8eb"),
    "grid": ("#040506", "#d5d9de", "#3a4048"),
    "paper": ("#070809", "#ffffff", "#15181c"),
    "blue": ("#0072b1", "#0072b2", "#4aa8e0"),
    "vermillion": ("#d55e01", "#d55e00", "#f08040"),
    "green": ("#009e72", "#008a64", "#2cc295"),
    "orange": ("#e69f01", "#e69f00", "#e69f00"),
    "sky": ("#56b4e8", "#56b4e9", "#8accf2"),
    "purple": ("#cc79a6", "#cc79a7", "#dd9abf"),
    "grey": ("#999998", "#8a8a8a", "#9a9a9a"),
}
WIDTH_INCHES, HEIGHT_INCHES = 7.2, 3.8


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One drawing.

    Args:
        key: for ids and file names.
        alt: what it shows, in words, for who cannot see it.
        svg: one ``<svg>`` element.
    """

    key: str
    title: str
    alt: str
    svg: str


def draw_plot(
    key: str, title: str, alt: str, draw: Callable[[Any], None], *, standalone: bool
) -> Plot:
    """Return a plot.

    Args:
        draw: draws it on matplotlib's axes.
        standalone: for a file of its own, with fixed colours and letters as outlines.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style(key, standalone)):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=not standalone, metadata=nothing)
    svg = _finish(text.getvalue(), key, title, alt, standalone)
    return Plot(key=key, title=title, alt=alt, svg=svg)


def _style(key: str, standalone: bool) -> dict[str, Any]:
    ink, grid, paper = (COLORS[name][0] for name in ("ink", "grid", "paper"))
    return {
        "svg.fonttype": "path" if standalone else "none", "svg.hashsalt": key,
        "font.size": 10, "font.sans-serif": ["DejaVu Sans"], "text.color": ink,
        "axes.labelcolor": ink, "axes.edgecolor": grid,
        "xtick.color": ink, "ytick.color": ink, "xtick.labelcolor": ink, "ytick.labelcolor": ink,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "axes.grid.axis": "y", "grid.color": grid, "grid.linewidth": 0.6, "axes.axisbelow": True,
        "figure.facecolor": paper, "axes.facecolor": "none", "savefig.facecolor": paper,
        "legend.frameon": False, "hatch.color": paper, "hatch.linewidth": 0.7,
        "lines.linewidth": 1.8, "lines.markersize": 6,
    }  # fmt: skip


def _finish(svg: str, key: str, title: str, alt: str, standalone: bool) -> str:
    """Make the drawing one element of a page: own ids, colours of the page, a title to be read."""
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', svg)
    svg = re.sub(r'(xlink:href="|href="|url\()#', rf"\1#{key}-", svg)
    for name, (stand_in, light, _) in COLORS.items():
        color = light if standalone else f"var(--{name}, {light})"
        svg = re.sub(stand_in, color, svg, flags=re.IGNORECASE)
    # Variables are sure to work in styles, not in attributes, where hatches have their color.
    svg = re.sub(r'\b(fill|stroke)="(var\([^"]*\))"', r'style="\1: \2"', svg)
    head, _, body = svg.partition(">")
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    if not standalone:  # in HTML the element knows its own names
        head = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", head)
        body = body.replace("xlink:href", "href")
    label = f'role="img" aria-labelledby="{key}-title {key}-alt"'
    spoken = f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-alt">{escape(alt)}'
    return f"{head} {label}>{spoken}</desc>{body}"
