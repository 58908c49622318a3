"""A table of the report as a value, and how sizes, rates and ranges are written in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpctrain.bench.report.result import Report, Size
from hpctrain.bench.report.words import say_number, say_ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table: the first `words` columns are text, the others figures.

    Args:
        key: for links.
        note: how to read it, one or two sentences.
    """

    key: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


def say_case(size: Size) -> str:
    """Return mode, precision and size in words.

    Baseline and precision always stand beside a ratio.
    """
    words = [size.mode, size.precision, say_ranks(size.np, size.nodes)]
    return ", ".join(word for word in words if word)


def say_baseline(size: Size, report: Report) -> str:
    """Return what a size is compared with."""
    if size.is_baseline:
        return "the baseline"
    base = report.size(size.baseline)
    return ", ".join(word for word in (base.precision, say_ranks(base.np, base.nodes)) if word)


def say_judgement(size: Size) -> str:
    """Return whether something can be concluded from a size."""
    words = []
    if size.inconclusive:
        words.append(f"inconclusive: {size.inconclusive}")
    if size.superlinear:
        words.append("over linear")
    return "; ".join(words) or "steady"


def rate_heading(report: Report) -> str:
    """Return what stands above rates: their unit, where all sizes have the same."""
    units = {size.unit for size in report.sizes}
    return units.pop() if len(units) == 1 else "rate"


def say_rate(value: float, size: Size, report: Report) -> str:
    """Return a rate; with its unit where that is not the same for all sizes."""
    said = say_number(value)
    return said if rate_heading(report) == size.unit else f"{said} {size.unit}"


def say_range(low: float, high: float, say: Callable[[float], str]) -> str:
    """Return two figures as a range."""
    return f"{say(low)} to {say(high)}"
