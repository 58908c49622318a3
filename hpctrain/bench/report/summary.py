"""The report in short, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpctrain.bench.report.parts import PARTS
from hpctrain.bench.report.table import rate_heading, say_case, say_judgement, say_rate
from hpctrain.bench.report.words import (
    say_percent,
    say_points,
)

if TYPE_CHECKING:
    from rich.console import Console

    from hpctrain.bench.report.result import Report, Size

NAMED_PARTS = 2


def print_summary(report: Report, console: Console | None = None) -> None:
    """Print a table of the sizes, the findings and the warnings."""
    from rich.console import Console
    from rich.table import Table

    console = console or Console(highlight=False, markup=False)
    against = list(dict.fromkeys(say_case(report.size(size.baseline)) for size in report.sizes))
    table = Table(
        title=report.title, title_justify="left", box=None, pad_edge=False,
        caption=f"speed-up and efficiency against: {'; '.join(against)}", caption_justify="left",
    )  # fmt: skip
    with_mfu = any(size.mfu is not None for size in report.sizes)
    table.add_column("case", no_wrap=True)
    for heading in (rate_heading(report), "speed-up", "efficiency", *(("MFU",) * with_mfu)):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("points lost to", overflow="fold")
    for size in report.sizes:
        table.add_row(
            say_case(size), say_rate(size.rate.median, size, report), f"{size.speedup:.2f}",
            say_percent(size.efficiency), *((say_percent(size.mfu),) * with_mfu),
            say_losses(size),
        )  # fmt: skip
    console.print(table)
    for paragraph in report.findings:
        console.print()
        console.print(paragraph)
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow")


def say_losses(size: Size) -> str:
    """Return the parts that took most, with their points; whether the size says anything."""
    if size.is_baseline:
        words = ["baseline"]
    elif size.lost_points is None:
        words = []
    else:
        largest = sorted(PARTS, key=lambda part: -size.lost_points[part])[:NAMED_PARTS]
        words = [
            f"{part} {say_points(size.lost_points[part])}"
            for part in largest
            if size.lost_points[part] >= 0.5
        ]
    judgement = say_judgement(size)
    return "; ".join([*words, *([] if judgement == "steady" else [judgement])])
