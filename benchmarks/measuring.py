"""What every benchmark here needs: what it ran on, medians with quartiles, a file of results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpctrain.bench.environment import BUSY_LOAD, probe_load
from hpctrain.bench.environment import probe_environment as environment

__all__ = ["environment", "quartiles", "ratios", "row", "table", "warn_if_busy", "write_result"]

Values = Mapping[str, Sequence[float]]


def warn_if_busy() -> None:
    """Say so where other work disturbs the measurement."""
    load = probe_load()
    if load > BUSY_LOAD:
        print(f"warning: the machine is busy, load {load:.2f}: expect spread, repeat when quiet")


def ratios(values: Values, above: str, below: str) -> list[float]:
    """Return `above` / `below`, pair by pair."""
    return [a / b for a, b in zip(values[above], values[below], strict=True)]


def table(values: Values, unit: str) -> str:
    """Return a Markdown table: the median of each row with its quartiles."""
    lines = ["| | median | quartiles |", "|---|---|---|"]
    lines += [row(title, numbers, unit) for title, numbers in values.items()]
    return "\n".join(lines)


def row(title: str, numbers: Sequence[float], unit: str = "") -> str:
    """Return a row of :func:`table`; quartiles from two values on."""
    low, middle, high = quartiles(numbers)
    return f"| {title} | {middle:.4g}{unit} | {low:.4g} to {high:.4g} |"


def quartiles(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile.

    >>> quartiles([4.0])
    (4.0, 4.0, 4.0)
    """
    if len(numbers) < 2:
        return numbers[0], numbers[0], numbers[0]
    low, middle, high = statistics.quantiles(numbers, n=4)
    return low, middle, high


def write_result(path: Path | None, record: Mapping[str, Any]) -> None:
    """Keep raw values and environment as JSON."""
    if path is not None:
        path.write_text(json.dumps(record, indent=1) + "\n")
