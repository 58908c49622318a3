"""Predictions for people: a table with small bars, and a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpctrain.errors import BenchError
from hpctrain.scaling_model.predict import Prediction

BAR_CELLS = 20
FULL, HALF = "█", "▌"
INK, BAND, GRID = "#1f4e79", "#9dc3e6", "#d9d9d9"
PART_COLOURS = {"computing": "#4f7f52", "waiting": "#d9a441", "exposed exchange": "#b5493a"}


def render_bar(part: float, cells: int = BAR_CELLS) -> str:
    """Return a bar for 0 to 1.

    >>> render_bar(0.5, 4), render_bar(0.375, 4)
    ('██  ', '█▌  ')
    """
    halves = round(min(max(part, 0.0), 1.0) * cells * 2)
    return (FULL * (halves // 2) + HALF * (halves % 2)).ljust(cells)


def render_seconds(seconds: float) -> str:
    """Return a time in three digits.

    >>> render_seconds(0.01234), render_seconds(1.5), render_seconds(0.0)
    ('12.3 ms', '1.5 s', '0 ms')
    """
    if seconds >= 1.0:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms"


def render_part(part: float) -> str:
    """Return a part as percent, small ones with a digit more.

    >>> render_part(0.936), render_part(0.0284)
    ('94%', '2.8%')
    """
    return f"{part:.0%}" if part >= 0.1 else f"{part:.1%}"


def render_predictions(predictions: Sequence[Prediction]) -> str:
    """Return a table: a line a size."""
    lines = [
        f"{'nodes':>6} {'ranks':>6} {'step':>9} {'low to high':>20} {'efficiency':>10} "
        f"{'':{BAR_CELLS}}  {'exposed':>9} {'waiting':>9}  what grows"
    ]
    for p in predictions:
        beyond = "*" if p.nodes > p.validated_nodes else " "
        band = f"{render_seconds(p.low_s)} to {render_seconds(p.high_s)}"
        lines.append(
            f"{p.nodes:>6}{beyond}{p.ranks:>6} {render_seconds(p.step_s):>9} {band:>20} "
            f"{p.efficiency:>10.1%} {render_bar(p.efficiency)}  "
            f"{render_seconds(p.exposed_comm_s):>9} {render_seconds(p.waiting_s):>9}  "
            f"{p.growing_term.partition(':')[0]}"
        )
    return "\n".join(lines)


def render_findings(predictions: Sequence[Prediction]) -> str:
    """Return in words what grows over the whole range, and what the band is made of."""
    first, last = predictions[0], predictions[-1]
    words = [
        f"At {last.nodes} nodes: {render_part(last.efficiency)} "
        f"({render_part(last.efficiency_low)} to {render_part(last.efficiency_high)})."
    ]
    if len(predictions) > 1:
        exposed_s = last.exposed_comm_s - first.exposed_comm_s
        waiting_s = last.waiting_s - first.waiting_s
        words.append(
            f"From {first.nodes} nodes on a step grows by "
            f"{render_seconds(max(0.0, last.step_s - first.step_s))}: "
            f"{render_seconds(max(0.0, exposed_s))} exchange that does not hide, "
            f"{render_seconds(max(0.0, waiting_s))} waiting for the slowest rank."
        )
    words.append(f"What grows next: {last.growing_term}.")
    if last.nodes > last.validated_nodes:
        words.append(
            f"Held against measurements: up to {last.validated_nodes} nodes. Lines with * are "
            "beyond, extrapolated."
        )
    words.append(f"Error band: {last.band}.")
    return "\n".join(words)


def draw_predictions(predictions: Sequence[Prediction], path: Path, title: str) -> None:
    """Draw efficiency with its band, and the parts of the step, into a file.

    Raises:
        BenchError: matplotlib is missing, or cannot write this kind of file.
    """
    try:
        import matplotlib
    except ImportError as problem:
        raise BenchError(
            f"{path}: drawing needs matplotlib, got none; expected it installed. "
            "Run: pip install matplotlib"
        ) from problem
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    nodes = [p.nodes for p in predictions]
    _draw_efficiency(left, nodes, predictions)
    _draw_parts(right, nodes, predictions)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as problem:
        raise BenchError(
            f"{path}: cannot be drawn: {problem}; expected a writable file that ends in .svg, "
            ".png or .pdf."
        ) from problem
    finally:
        pyplot.close(figure)


def _draw_efficiency(axes: Any, nodes: Sequence[int], predictions: Sequence[Prediction]) -> None:
    low = [100 * p.efficiency_low for p in predictions]
    high = [100 * p.efficiency_high for p in predictions]
    axes.axhline(100, color=GRID, linestyle="--")
    axes.fill_between(nodes, low, high, color=BAND, alpha=0.6, label="error band")
    axes.plot(nodes, [100 * p.efficiency for p in predictions], "o-", color=INK, label="predicted")
    axes.set(xlabel="nodes", ylabel="weak-scaling efficiency (%)", ylim=(0, 105))
    _scale(axes, nodes)
    axes.legend(loc="lower left", frameon=False)


def _draw_parts(axes: Any, nodes: Sequence[int], predictions: Sequence[Prediction]) -> None:
    parts = {
        "computing": [1e3 * p.compute_s for p in predictions],
        "waiting": [1e3 * p.waiting_s for p in predictions],
        "exposed exchange": [1e3 * p.exposed_comm_s for p in predictions],
    }
    axes.stackplot(nodes, *parts.values(), labels=parts, colors=PART_COLOURS.values(), alpha=0.85)
    axes.set(xlabel="nodes", ylabel="step (ms)", ylim=(0, None))
    _scale(axes, nodes)
    axes.legend(loc="lower right", frameon=True)


def _scale(axes: Any, nodes: Sequence[int]) -> None:
    if len(nodes) > 2:
        axes.set_xscale("log", base=2)
    axes.set_xticks(nodes, [str(count) for count in nodes], rotation=45 if len(nodes) > 8 else 0)
    axes.grid(visible=True, color=GRID, linewidth=0.5)
