"""An all-reduce measurement as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hpctrain.bench.allreduce.results import AllreduceResult
from hpctrain.bench.allreduce.sizes import render_size

if TYPE_CHECKING:
    from hpctrain.scaling_model.links import LinkFit

_HEAD = (
    f"{'size':>8} {'median':>10} {'p99':>10} {'algbw':>9} {'busbw':>9} {'wrong':>7} {'repeats':>8}"
)
_UNITS = f"{'bytes':>8} {'us':>10} {'us':>10} {'GB/s':>9} {'GB/s':>9} {'':>7} {'':>8}"


def render_result(result: AllreduceResult, fits: Mapping[str, LinkFit]) -> str:
    """Return a table for each backend with its fit, and what was left out.

    Args:
        fits: by backend, as :func:`hpctrain.bench.allreduce.results.fit_links` gives them.
    """
    ranks = "1 rank" if result.n == 1 else f"{result.n} ranks"
    lines = [f"all-reduce of fp32, sum, in place; {ranks}: {result.placement}"]
    for backend in result.backends:
        points = [point for point in result.points if point.backend == backend]
        lines += ["", f"{backend} ({points[0].device})", _HEAD, _UNITS]
        lines += [
            f"{render_size(p.bytes_):>8} {1e6 * p.median_s:>10.1f} {1e6 * p.p99_s:>10.1f} "
            f"{p.algbw_gb_per_s:>9.4g} {p.busbw_gb_per_s:>9.4g} {p.wrong:>7} "
            f"{f'{len(p.repeats_s)}x{p.iterations}':>8}"
            for p in points
        ]
        if backend in fits:
            lines.append(render_fit(fits[backend]))
    if result.skipped:
        lines += ["", "not measured:"]
        lines += [
            f"  {each.backend}"
            + ("" if each.bytes_ is None else f" at {render_size(each.bytes_)}")
            + f": {each.reason}"
            for each in result.skipped
        ]
    return "\n".join(lines)


def render_fit(fit: LinkFit) -> str:
    """Return latency, bandwidth and how far from them the measured times are."""
    link = fit.link
    worst = max(map(abs, fit.residuals))
    middle = sorted(map(abs, fit.residuals))[len(fit.residuals) // 2]
    residuals = " ".join(f"{100 * each:+.0f}" for each in fit.residuals)
    asking = f", rendezvous {1e6 * link.handshake_s:.1f} us" if link.handshake_s else ""
    return (
        f"  fit: latency {1e6 * link.latency_s:.1f} us{asking}, bandwidth "
        f"{link.bandwidth_bytes_per_s / 1e9:.3g} GB/s each way; off by {100 * middle:.0f} % at the "
        f"median, {100 * worst:.0f} % at worst\n  fit - measured, by size (%): {residuals}"
    )
