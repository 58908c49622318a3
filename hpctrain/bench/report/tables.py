"""The report's tables: what stands in them, once, for every file that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpctrain.bench.report.parts import PARTS, TITLES
from hpctrain.bench.report.result import Report
from hpctrain.bench.report.table import (
    Table,
    rate_heading,
    say_baseline,
    say_case,
    say_judgement,
    say_range,
    say_rate,
)
from hpctrain.bench.report.tables_compared import (
    plan_bus,
    plan_forecasts,
    plan_links,
    plan_placements,
    plan_precisions,
)
from hpctrain.bench.report.words import (
    UNKNOWN,
    say_bytes,
    say_number,
    say_percent,
    say_points,
    say_seconds,
    say_usd,
)


def plan_tables(report: Report) -> tuple[Table, ...]:
    """Return every table that has rows."""
    tables = (
        _sizes(report), _steps(report), _lost(report), _stragglers(report),
        plan_placements(report), plan_precisions(report), plan_forecasts(report),
        plan_links(report), plan_bus(report), _raw(report),
    )  # fmt: skip
    return tuple(table for table in tables if table.rows)


def _sizes(report: Report) -> Table:
    columns = (
        "case", "against", rate_heading(report), "quartiles", "a rank", "speed-up", "efficiency",
        "its quartiles", "MFU", "sent a step, a rank", "$ per million tokens", "repeats",
    )  # fmt: skip
    rows = [
        (
            say_case(size),
            say_baseline(size, report),
            say_rate(size.rate.median, size, report),
            say_range(size.rate.q1, size.rate.q3, say_number),
            say_number(size.rate_per_rank),
            f"{size.speedup:.2f} of {size.np / report.size(size.baseline).np:g}",
            say_percent(size.efficiency),
            say_range(size.efficiency_rounds.q1, size.efficiency_rounds.q3, say_percent),
            say_percent(size.mfu),
            say_bytes(size.wire_bytes),
            say_usd(size.usd_per_million_tokens),
            say_judgement(size),
        )
        for size in report.sizes
    ]
    return Table(
        key="sizes", title="Sizes", words=2, columns=columns, rows=tuple(rows),
        note="Medians over the repeats. Speed-up and efficiency are relative to the case under "
        "'against'; their quartiles are taken round by round.",
    )  # fmt: skip


def _steps(report: Report) -> Table:
    rows = [
        (say_case(size), say_seconds(size.step_s), *(
            UNKNOWN if size.parts_s is None else say_seconds(size.parts_s[part]) for part in PARTS
        ))
        for size in report.sizes
        if size.step_s is not None
    ]  # fmt: skip
    return Table(
        key="steps", title="A step, and what it is spent on", rows=tuple(rows),
        columns=("case", "step", *(TITLES[part] for part in PARTS)),
        note="The parts add up to the step. They are means over the ranks; of what ranks wait "
        "for after backward, the least that any rank waits is the exchange, the rest is waiting "
        "for the slowest rank.",
    )  # fmt: skip


def _lost(report: Report) -> Table:
    rows = [
        (
            say_case(size), say_baseline(size, report), say_percent(size.efficiency),
            say_points(100 * (1 - size.efficiency)),
            *(say_points(size.lost_points[part]) for part in PARTS),
        )
        for size in report.sizes
        if size.lost_points is not None
    ]  # fmt: skip
    return Table(
        key="lost", title="Where each lost percent went", rows=tuple(rows), words=2,
        columns=("case", "against", "efficiency", "lost", *(TITLES[part] for part in PARTS)),
        note="Percent points of efficiency: how much longer each part takes than it would "
        "ideally, over the step. They add up to what is lost; a minus is a gain.",
    )  # fmt: skip


def _stragglers(report: Report) -> Table:
    rows = [
        (
            say_case(size), str(straggler.rank), straggler.host, straggler.device,
            TITLES[straggler.part], say_percent(straggler.slower),
            say_percent(straggler.threshold),
        )
        for size in report.sizes
        for straggler in size.stragglers
    ]  # fmt: skip
    return Table(
        key="stragglers", title="Straggling ranks", rows=tuple(rows), words=5,
        columns=("case", "rank", "host", "device", "mostly in", "slower", "threshold"),
        note="Slower in their own work than the median of the other ranks by more than the "
        "threshold: 10 %, or three standard deviations of what differs by chance.",
    )  # fmt: skip


def _raw(report: Report) -> Table:
    rows = tuple(
        (
            size.key, str(repeat.repeat), repeat.run, say_rate(repeat.rate, size, report),
            say_seconds(repeat.step_s), say_seconds(repeat.mean_step_s),
            f"{repeat.load_before:.2f}",
        )
        for size in report.sizes
        for repeat in size.repeats
    )  # fmt: skip
    return Table(
        key="raw", title="Every repeat", rows=rows, words=3,
        columns=("case", "repeat", "run", rate_heading(report), "typical step", "mean step",
                 "load before"),
        note="The typical step is the mean of the middle half of the timed steps; every step is "
        "in report.json, every rank's parts are in samples.jsonl.",
    )  # fmt: skip


def table_notes(report: Report) -> Iterator[str]:
    """Yield what is to be said of single sizes, below the tables."""
    for size in report.sizes:
        remarks: Sequence[str] = (*size.notes, *((size.superlinear,) if size.superlinear else ()))
        for remark in remarks:
            yield f"{size.key}: {remark}"
