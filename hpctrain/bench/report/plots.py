"""The report's plots, as SVG text. matplotlib is imported when one is drawn.

In a page colours are CSS variables, so that one drawing serves light, dark and paper; in a file
of its own they are what the light page has. The palette is Okabe and Ito's (2008, "Color
Universal Design"), whose colours colour-blind people tell apart; series differ in marker and
dash too, and stacked parts in hatching, so that nothing hangs on colour alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from hpctrain.bench.report.parts import PARTS, TITLES
from hpctrain.bench.report.result import Report, Size
from hpctrain.bench.report.words import say_bytes, say_number, say_percent

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
PART_LOOKS = {
    "data": ("sky", ""), "forward": ("blue", ""), "backward": ("green", ""),
    "exchange": ("vermillion", "///"), "waiting": ("orange", "..."),
    "optimizer": ("purple", ""), "other": ("grey", "xxx"),
}  # fmt: skip
LINE_LOOKS = (
    ("blue", "o", "-"), ("vermillion", "s", "-"), ("green", "^", "-"), ("purple", "D", "-"),
    ("orange", "v", "--"), ("sky", "P", "--"), ("grey", "X", "--"),
)  # fmt: skip
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


def draw_plots(report: Report, *, standalone: bool = False) -> tuple[Plot, ...]:
    """Return the plots for which there are figures.

    Args:
        standalone: for files of their own, with fixed colours and letters as outlines.
    """
    drawn = (
        _draw("rate", f"{report.sizes[0].unit} over ranks", _rate_alt, _draw_rate),
        _draw("efficiency", "Efficiency over ranks", _efficiency_alt, _draw_efficiency),
        _draw("steps", "Time of a step", _steps_alt, _draw_steps),
        _draw("bus", "Bus bandwidth of the all-reduce over message size", _bus_alt, _draw_bus),
    )
    return tuple(
        plot for draw in drawn if (plot := draw(report, standalone=standalone)) is not None
    )


def series_of(report: Report) -> dict[str, list[Size]]:
    """Return the sizes that make one line, by its name: a mode and precision, and a placement."""
    fewest: dict[tuple[str, str | None, int], int] = {}
    for size in report.sizes:
        key = (size.mode, size.precision, size.np)
        fewest[key] = min(size.nodes, fewest.get(key, size.nodes))
    lines: dict[str, list[Size]] = {}
    for size in report.sizes:
        packed = size.nodes == fewest[size.mode, size.precision, size.np]
        words = [size.mode, size.precision, None if packed else "spread over nodes"]
        lines.setdefault(", ".join(word for word in words if word), []).append(size)
    return {name: sorted(sizes, key=lambda size: size.np) for name, sizes in lines.items()}


def _draw(
    key: str, title: str, say: Callable[[Report], str | None], draw: Callable[[Report, Any], None]
) -> Callable[..., Plot | None]:
    def drawn(report: Report, *, standalone: bool) -> Plot | None:
        alt = say(report)
        if alt is None:
            return None
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        with matplotlib.rc_context(_style(key, standalone)):
            figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
            FigureCanvasSVG(figure)
            draw(report, figure.add_subplot())
            text = io.StringIO()
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(text, format="svg", transparent=not standalone, metadata=nothing)
        svg = _finish(text.getvalue(), key, title, alt, standalone)
        return Plot(key=key, title=title, alt=alt, svg=svg)

    return drawn


def _style(key: str, standalone: bool) -> dict[str, Any]:
    ink, grid, paper = (COLORS[name][0] for name in ("ink", "grid", "paper"))
    return {
        "svg.fonttype": "path" if standalone else "none", "svg.hashsalt": key,
        "font.size": 10, "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": grid,
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
    head, _, body = svg.partition(">")
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    if not standalone:  # in HTML the element knows its own names
        head = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", head)
        body = body.replace("xlink:href", "href")
    label = f'role="img" aria-labelledby="{key}-title {key}-alt"'
    spoken = f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-alt">{escape(alt)}'
    return f"{head} {label}>{spoken}</desc>{body}"


def _draw_lines(
    axes: Any, report: Report, value: Callable[[Size], tuple[float, float, float]]
) -> None:
    """Draw median and quartiles of each series."""
    for (name, sizes), (color, marker, dash) in zip(series_of(report).items(), _looks()):
        rows = [value(size) for size in sizes]
        below = [max(0.0, middle - low) for low, middle, _ in rows]
        above = [max(0.0, high - middle) for _, middle, high in rows]
        axes.errorbar(
            [size.np for size in sizes], [middle for _, middle, _ in rows], yerr=[below, above],
            label=name, color=COLORS[color][0], marker=marker, linestyle=dash, capsize=3,
        )  # fmt: skip
    _rank_axis(axes, report)


def _looks() -> Any:
    import itertools

    return itertools.cycle(LINE_LOOKS)


def _rank_axis(axes: Any, report: Report) -> None:
    counts = sorted({size.np for size in report.sizes})
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlim(counts[0] / 1.2, counts[-1] * 1.2)
    axes.set_xlabel("ranks")
    axes.set_ylim(bottom=0)


def _rate_alt(report: Report) -> str:
    said = [
        f"{name}: " + ", ".join(f"{size.np} ranks {say_number(size.rate.median)}" for size in sizes)
        for name, sizes in series_of(report).items()
    ]
    return f"{report.sizes[0].unit} by number of ranks. " + "; ".join(said) + "."


def _draw_rate(report: Report, axes: Any) -> None:
    _draw_lines(axes, report, lambda size: (size.rate.q1, size.rate.median, size.rate.q3))
    for place, key in enumerate(dict.fromkeys(size.baseline for size in report.sizes)):
        base = report.size(key)
        counts = [size.np for size in report.sizes if size.baseline == key]
        ends = (min(counts), max(counts))
        axes.plot(
            ends, [base.rate.median / base.np * count for count in ends], linestyle=":",
            color=COLORS["ink"][0], linewidth=1.2, label="ideal" if place == 0 else None,
        )  # fmt: skip
    axes.set_ylabel(report.sizes[0].unit)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.legend()


def _efficiency_alt(report: Report) -> str:
    said = [
        f"{name}: "
        + ", ".join(f"{size.np} ranks {say_percent(size.efficiency, 0)}" for size in sizes)
        for name, sizes in series_of(report).items()
    ]
    return "Efficiency by number of ranks; ideal is 100 %. " + "; ".join(said) + "."


def _draw_efficiency(report: Report, axes: Any) -> None:
    _draw_lines(
        axes, report,
        lambda size: (
            100 * size.efficiency_rounds.q1, 100 * size.efficiency,
            100 * size.efficiency_rounds.q3,
        ),
    )  # fmt: skip
    axes.axhline(100, linestyle=":", color=COLORS["ink"][0], linewidth=1.2, label="ideal")
    axes.set_ylabel("efficiency, %")
    axes.legend()


def _steps_alt(report: Report) -> str | None:
    said = []
    for size in report.sizes:
        if size.parts_s is not None:
            largest = sorted(PARTS, key=lambda part: -size.parts_s[part])[:3]
            shares = ", ".join(
                f"{TITLES[part]} {say_percent(size.parts_s[part] / size.step_s, 0)}"
                for part in largest
            )
            said.append(f"{size.key}: {1000 * size.step_s:.3g} ms, mostly {shares}")
    return "Time of a step, stacked by its parts. " + "; ".join(said) + "." if said else None


def _draw_steps(report: Report, axes: Any) -> None:
    sizes = [size for size in report.sizes if size.parts_s is not None]
    bottom = [0.0] * len(sizes)
    for part in PARTS:
        color, hatch = PART_LOOKS[part]
        heights = [1000 * max(0.0, size.parts_s[part]) for size in sizes]
        axes.bar(
            range(len(sizes)), heights, bottom=bottom, width=0.62, label=TITLES[part],
            color=COLORS[color][0], hatch=hatch, edgecolor=COLORS["paper"][0], linewidth=0.6,
        )  # fmt: skip
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.set_xticks(range(len(sizes)), [_short_label(size, report) for size in sizes])
    axes.set_ylabel("ms a step")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5))


def _short_label(size: Size, report: Report) -> str:
    words = [f"{size.np}"]
    for name in ("mode", "precision"):
        if len({getattr(each, name) for each in report.sizes}) > 1:
            words.append(getattr(size, name) or "")
    if max(each.nodes for each in report.sizes) > 1:
        words.append(f"{size.nodes} node{'' if size.nodes == 1 else 's'}")
    return "\n".join(words)


def _bus_lines(report: Report) -> dict[str, list[tuple[int, float]]]:
    lines: dict[str, list[tuple[int, float]]] = {}
    for point in report.bus:
        name = f"{point.backend}, {point.placement}"
        lines.setdefault(name, []).append((point.bytes_, point.busbw_gb_per_s))
    return {name: sorted(points) for name, points in lines.items()}


def _bus_alt(report: Report) -> str | None:
    said = []
    for name, points in _bus_lines(report).items():
        bytes_, best = max(points, key=lambda point: point[1])
        said.append(f"{name}: at most {best:.3g} GB/s, at {say_bytes(bytes_)}")
    if not said:
        return None
    return "Bus bandwidth of the all-reduce by message size. " + "; ".join(said) + "."


def _draw_bus(report: Report, axes: Any) -> None:
    lines: Sequence[tuple[str, list[tuple[int, float]]]] = list(_bus_lines(report).items())
    for (name, points), (color, marker, dash) in zip(lines, _looks()):
        axes.plot(
            [bytes_ for bytes_, _ in points], [speed for _, speed in points], label=name,
            color=COLORS[color][0], marker=marker, linestyle=dash, markersize=4,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    sizes = sorted({bytes_ for _, points in lines for bytes_, _ in points})
    shown = sizes[:: max(1, len(sizes) // 8)]
    axes.set_xticks(shown, [say_bytes(bytes_) for bytes_ in shown])
    axes.minorticks_off()
    axes.set_xlabel("message")
    axes.set_ylabel("bus bandwidth, GB/s")
    axes.set_ylim(bottom=0)
    axes.legend()
