"""Tables of what is held against each other: placements, precisions, forecasts, all-reduces."""

from __future__ import annotations

from hpctrain.bench.report.result import Report
from hpctrain.bench.report.spread import RatioInterval
from hpctrain.bench.report.table import Table, say_case, say_range
from hpctrain.bench.report.words import UNKNOWN, say_message, say_percent, say_seconds


def plan_placements(report: Report) -> Table:
    """Return the table of the same ranks, placed otherwise."""
    rows = [
        (
            pair.key, pair.baseline, pair.what, f"{pair.ratio.median:.3f}",
            say_range(pair.ratio.q1, pair.ratio.q3, _say_ratio),
            _say_interval(pair.interval), pair.verdict,
        )
        for pair in report.placements
    ]  # fmt: skip
    return Table(
        key="placements", title="One node against several", rows=tuple(rows), words=3,
        columns=("case", "against", "what", "rate", "quartiles", "interval", "verdict"),
        note="The same ranks, placed otherwise; ratios of the rates, round by round.",
    )  # fmt: skip


def plan_precisions(report: Report) -> Table:
    """Return the table of each precision against fp32."""
    rows = [
        (
            pair.key, pair.baseline, pair.what, f"{pair.ratio.median:.3f}",
            say_range(pair.ratio.q1, pair.ratio.q3, _say_ratio),
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


def plan_forecasts(report: Report) -> Table:
    """Return the table of what the scaling model said of each size."""
    rows = []
    for size in report.sizes:
        forecast = size.forecast
        if forecast.kind == "predicted":
            said = say_seconds(forecast.step_s)
            band = say_range(forecast.low_s, forecast.high_s, say_seconds)
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


def plan_links(report: Report) -> Table:
    """Return the table of fitted links."""
    rows = []
    for link in report.links:
        bytes_, worst = max(link.residuals, key=lambda each: abs(each[1]))
        bandwidth = link.bandwidth_gb_per_s
        rows.append((
            link.placement, link.backend, say_seconds(link.latency_s),
            say_seconds(link.handshake_s), UNKNOWN if bandwidth is None else f"{bandwidth:.3g}",
            say_percent(link.error), f"{100 * worst:+.1f} % at {say_message(bytes_)}",
        ))  # fmt: skip
    return Table(
        key="links", title="Links, as fitted", rows=tuple(rows), words=2,
        columns=(
            "placement", "backend", "latency", "handshake", "bandwidth, GB/s", "error",
            "largest residual",
        ),
        note="Latency, handshake (of large messages) and bandwidth one way that the all-reduces "
        "below fit best. The error is the root mean square of the residuals: fit over measured "
        "time, less 1.",
    )  # fmt: skip


def plan_bus(report: Report) -> Table:
    """Return the table of all-reduces, with the residuals of their fit."""
    residuals = {
        (link.placement, link.backend, bytes_): f"{100 * residual:+.1f} %"
        for link in report.links
        for bytes_, residual in link.residuals
    }
    rows = tuple(
        (point.placement, point.backend, say_message(point.bytes_), say_seconds(point.median_s),
         f"{point.busbw_gb_per_s:.3g}",
         residuals.get((point.placement, point.backend, point.bytes_), UNKNOWN))
        for point in report.bus
    )  # fmt: skip
    return Table(
        key="bus",
        title="All-reduce",
        rows=rows,
        words=2,
        columns=("placement", "backend", "message", "time", "bus bandwidth, GB/s", "residual"),
        note="Bus bandwidth as nccl-tests defines it: bytes over time, times 2(n-1)/n. The "
        "residual is the fitted time over the measured one, less 1.",
    )


def _say_ratio(value: float) -> str:
    return f"{value:.3f}"


def _say_interval(interval: RatioInterval) -> str:
    if interval.low is None:
        return UNKNOWN
    return f"{interval.low:.3f} to {interval.high:.3f} ({100 * interval.confidence:.0f} %)"
