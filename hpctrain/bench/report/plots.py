"""The report's plots: what each shows, drawn and in words.

Series differ in marker and dash beside their colour, and stacked parts in hatching, so that
nothing hangs on colour alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from hpctrain.bench.report.drawing import COLORS, Plot, draw_plot
from hpctrain.bench.report.parts import PARTS, TITLES
from hpctrain.bench.report.result import Report, Size
from hpctrain.bench.report.table import rate_heading
from hpctrain.bench.report.words import say_message, say_number, say_percent, say_ranks

PART_LOOKS = {
    "data": ("sky", ""), "forward": ("blue", ""), "backward": ("green", ""),
    "exchange": ("vermillion", "//"), "waiting": ("orange", "."),
    "optimizer": ("purple", ""), "other": ("grey", "xx"),
}  # fmt: skip
LINE_LOOKS = (
    ("blue", "o", "-"), ("vermillion", "s", "-"), ("green", "^", "-"), ("purple", "D", "-"),
    ("orange", "v", "--"), ("sky", "P", "--"), ("grey", "X", "--"),
)  # fmt: skip

IDEAL_POINTS = 64


def draw_plots(report: Report, *, standalone: bool = False) -> tuple[Plot, ...]:
    """Return the plots for which there are figures.

    Args:
        standalone: for files of their own, with fixed colours and letters as outlines.
    """
    wanted = (
        ("rate", f"{rate_heading(report)} over ranks", _rate_alt, _draw_rate),
        ("efficiency", "Efficiency over ranks", _efficiency_alt, _draw_efficiency),
        ("steps", "Time of a step", _steps_alt, _draw_steps),
        ("bus", "Bus bandwidth of the all-reduce over message size", _bus_alt, _draw_bus),
    )
    said = [(key, title, say(report), draw) for key, title, say, draw in wanted]
    return tuple(
        draw_plot(key, title, alt, functools.partial(draw, report), standalone=standalone)
        for key, title, alt, draw in said
        if alt is not None
    )


def series_of(report: Report) -> dict[str, list[Size]]:
    """Return the sizes that make one line, by its name: a mode and precision, and a placement.

    Where units differ, each has lines of its own.
    """
    is_mixed = len({size.unit for size in report.sizes}) > 1
    fewest: dict[tuple[str, str | None, int], int] = {}
    for size in report.sizes:
        key = (size.mode, size.precision, size.np)
        fewest[key] = min(size.nodes, fewest.get(key, size.nodes))
    lines: dict[str, list[Size]] = {}
    for size in report.sizes:
        packed = size.nodes == fewest[size.mode, size.precision, size.np]
        words = [
            size.mode,
            size.precision,
            None if packed else "spread over nodes",
            size.unit if is_mixed else None,
        ]
        lines.setdefault(", ".join(word for word in words if word), []).append(size)
    return {name: sorted(sizes, key=lambda size: size.np) for name, sizes in lines.items()}


def _draw_lines(
    axes: Any, report: Report, value: Callable[[Size], tuple[float, float, float]]
) -> None:
    """Draw median and quartiles of each series."""
    for (name, sizes), (color, marker, dash) in zip(
        series_of(report).items(), _looks(), strict=False
    ):
        rows = [value(size) for size in sizes]
        below = [max(0.0, middle - low) for low, middle, _ in rows]
        above = [max(0.0, high - middle) for _, middle, high in rows]
        axes.errorbar(
            [size.np for size in sizes], [middle for _, middle, _ in rows], yerr=[below, above],
            label=name, color=COLORS[color][0], marker=marker, linestyle=dash, capsize=3,
        )  # fmt: skip
    _rank_axis(axes, report)


def _looks() -> Iterator[tuple[str, str, str]]:
    return itertools.cycle(LINE_LOOKS)


def _rank_axis(axes: Any, report: Report) -> None:
    counts = sorted({size.np for size in report.sizes})
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlim(counts[0] / 1.2, counts[-1] * 1.2)
    axes.set_xlabel("ranks")


def _say_series(report: Report, say: Callable[[Size], str]) -> str:
    lines = {
        name: ", ".join(f"{say_ranks(size.np, size.nodes)} {say(size)}" for size in sizes)
        for name, sizes in series_of(report).items()
    }
    return "; ".join(f"{name}: {words}" for name, words in lines.items())


def _rate_alt(report: Report) -> str:
    said = [
        f"{name}: "
        + ", ".join(
            f"{say_ranks(size.np, size.nodes)} {say_number(size.rate.median)}" for size in sizes
        )
        for name, sizes in series_of(report).items()
    ]
    return f"{rate_heading(report)} by number of ranks. " + "; ".join(said) + "."


def _draw_rate(report: Report, axes: Any) -> None:
    _draw_lines(axes, report, lambda size: (size.rate.q1, size.rate.median, size.rate.q3))
    for place, key in enumerate(dict.fromkeys(size.baseline for size in report.sizes)):
        base = report.size(key)
        counts = [size.np for size in report.sizes if size.baseline == key]
        times = max(counts) / min(counts)  # a line over ranks is a curve over their logarithm
        curve = [min(counts) * times ** (point / IDEAL_POINTS) for point in range(IDEAL_POINTS + 1)]
        axes.plot(
            curve, [base.rate.median / base.np * count for count in curve], linestyle=":",
            color=COLORS["ink"][0], linewidth=1.2, label="ideal" if place == 0 else None,
        )  # fmt: skip
    axes.set_ylabel(rate_heading(report))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.set_ylim(bottom=0)
    axes.legend()


def _efficiency_alt(report: Report) -> str:
    said = [
        f"{name}: "
        + ", ".join(
            f"{say_ranks(size.np, size.nodes)} {say_percent(size.efficiency, 0)}" for size in sizes
        )
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
    bases = {(size.np, size.nodes) for size in report.sizes if size.is_baseline}
    against = f" of {say_ranks(*min(bases))}" if len(bases) == 1 else ""
    axes.set_ylabel(f"rate a rank, %{against}")
    axes.set_ylim(bottom=0, top=max(105, axes.get_ylim()[1]))
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
    axes.set_xlabel("ranks")
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
        said.append(f"{name}: at most {best:.3g} GB/s, at {say_message(bytes_)}")
    if not said:
        return None
    return "Bus bandwidth of the all-reduce by message size. " + "; ".join(said) + "."


def _draw_bus(report: Report, axes: Any) -> None:
    lines = _bus_lines(report)
    for (name, points), (color, marker, dash) in zip(lines.items(), _looks(), strict=False):
        axes.plot(
            [bytes_ for bytes_, _ in points], [speed for _, speed in points], label=name,
            color=COLORS[color][0], marker=marker, linestyle=dash, markersize=4,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    sizes = sorted({bytes_ for points in lines.values() for bytes_, _ in points})
    shown = sizes[:: max(1, len(sizes) // 8)]
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.10g}")
    axes.set_xticks(shown, [say_message(bytes_) for bytes_ in shown])
    axes.minorticks_off()
    axes.set_xlabel("message")
    axes.set_ylabel("bus bandwidth, GB/s")
    axes.legend()
