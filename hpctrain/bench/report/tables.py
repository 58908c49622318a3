"""The report's tables: what stands in them, once, for every file that shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hpctrain.bench.report.parts import PARTS, TITLES
from hpctrain.bench.report.result import Report, Size
from hpctrain.bench.report.spread import RatioInterval
from hpctrain.bench.report.words import (
    UNKNOWN,
    say_bytes,
    say_message,
    say_number,
    say_percent,
    say_points,
    say_ranks,
    say_seconds,
    say_usd,
)


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


def plan_tables(report: Report) -> tuple[Table, ...]:
    """Return every table that has rows."""
    tables = (
        _sizes(report), _steps(report), _lost(report), _stragglers(report),
        _placements(report), _precisions(report), _forecasts(report), _bus(report), _raw(report),
    )  # fmt: skip
    return tuple(table for table in tables if table.rows)


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


def _sizes(report: Report) -> Table:
    unit = report.sizes[0].unit
    columns = (
        "case", "against", unit, "quartiles", "a rank", "speed-up", "efficiency",
        "its quartiles", "MFU", "sent a step, a rank", "$ per million tokens", "repeats",
    )  # fmt: skip
    rows = [
        (
            say_case(size),
            say_baseline(size, report),
            say_number(size.rate.median),
            _say_range(size.rate.q1, size.rate.q3, say_number),
            say_number(size.rate_per_rank),
            f"{size.speedup:.2f} of {size.np / report.size(size.baseline).np:g}",
            say_percent(size.efficiency),
            _say_range(size.efficiency_rounds.q1, size.efficiency_rounds.q3, say_percent),
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


def _placements(report: Report) -> Table:
    rows = [
        (
            pair.key, pair.baseline, pair.what, f"{pair.ratio.median:.3f}",
            _say_range(pair.ratio.q1, pair.ratio.q3, _say_ratio),
            _say_interval(pair.interval), pair.verdict,
        )
        for pair in report.placements
    ]  # fmt: skip
    return Table(
        key="placements", title="One node against several", rows=tuple(rows), words=3,
        columns=("case", "against", "what", "rate", "quartiles", "interval", "verdict"),
        note="The same ranks, placed otherwise; ratios of the rates, round by round.",
    )  # fmt: skip


def _precisions(report: Report) -> Table:
    rows = [
        (
            pair.key, pair.baseline, pair.what, f"{pair.ratio.median:.3f}",
            _say_range(pair.ratio.q1, pair.ratio.q3, _say_ratio),
            _say_interval(pair.interval), pair.verdict,
            say_percent(pair.loss_difference, 3), say_percent(pair.loss_noise, 3),
        )
        for pair in report.precisions
    ]  # fmt: skip
    return Table(
        key="precisions", title="Precisions side by side", rows=tuple(rows), words=3,
        columns=(
            "case", "against", "what", "rate", "quartiles", "interval", "verdict",
            "largest difference of the loss", "the same between repeats of fp32",
        ),
        note="On the same seed and samples; ratios of the rates, round by round. A rate above 1 "
        "is faster. Losses are compared step by step.",
    )  # fmt: skip


def _forecasts(report: Report) -> Table:
    rows = []
    for size in report.sizes:
        forecast = size.forecast
        if forecast.kind == "predicted":
            said = say_seconds(forecast.step_s)
            band = _say_range(forecast.low_s, forecast.high_s, say_seconds)
            error = f"{100 * forecast.error:+.1f} %"
            efficiency = say_percent(forecast.efficiency)
        else:
            said, band, error, efficiency = forecast.kind, "", "", ""
        if size.step_s is not None:
            rows.append((
                say_case(size), say_seconds(size.step_s), said, band, error,
                say_percent(size.efficiency), efficiency, forecast.why,
            ))  # fmt: skip
    return Table(
        key="forecasts", title="Predicted and measured", rows=tuple(rows),
        columns=(
            "case", "step measured", "step predicted", "error band", "error",
            "efficiency measured", "efficiency predicted", "how",
        ),
        note="Sizes that the model was calibrated on are no test of it: they are marked, and "
        "nothing is predicted for them.",
    )  # fmt: skip


def _bus(report: Report) -> Table:
    rows = tuple(
        (point.placement, point.backend, say_message(point.bytes_), say_seconds(point.median_s),
         f"{point.busbw_gb_per_s:.3g}")
        for point in report.bus
    )  # fmt: skip
    return Table(
        key="bus",
        title="All-reduce",
        rows=rows,
        words=2,
        columns=("placement", "backend", "message", "time", "bus bandwidth, GB/s"),
        note="Bus bandwidth as nccl-tests defines it: bytes over time, times 2(n-1)/n.",
    )


def _raw(report: Report) -> Table:
    rows = tuple(
        (
            size.key, str(repeat.repeat), repeat.run, say_number(repeat.rate),
            say_seconds(repeat.step_s), say_seconds(repeat.mean_step_s),
            f"{repeat.load_before:.2f}",
        )
        for size in report.sizes
        for repeat in size.repeats
    )  # fmt: skip
    return Table(
        key="raw", title="Every repeat", rows=rows, words=3,
        columns=("case", "repeat", "run", report.sizes[0].unit, "typical step", "mean step",
                 "load before"),
        note="The typical step is the mean of the middle half of the timed steps; every step is "
        "in report.json, every rank's parts are in samples.jsonl.",
    )  # fmt: skip


def _say_ratio(value: float) -> str:
    return f"{value:.3f}"


def _say_interval(interval: RatioInterval) -> str:
    if interval.low is None:
        return UNKNOWN
    return f"{interval.low:.3f} to {interval.high:.3f} ({100 * interval.confidence:.0f} %)"


def _say_range(low: float, high: float, say: Callable[[float], str]) -> str:
    return f"{say(low)} to {say(high)}"


def table_notes(report: Report) -> Iterator[str]:
    """Yield what is to be said of single sizes, below the tables."""
    for size in report.sizes:
        remarks: Sequence[str] = (*size.notes, *((size.superlinear,) if size.superlinear else ()))
        for remark in remarks:
            yield f"{size.key}: {remark}"
