"""The lines about what a run costs besides computing: checkpoints, failures, money."""

from __future__ import annotations

from collections.abc import Iterator

from hpctrain.estimate.goodput import FAILURE_GPU_HOURS
from hpctrain.estimate.line import Line
from hpctrain.estimate.plan import Estimate
from hpctrain.estimate.quantities import render_bytes, render_duration, render_usd


def describe_checkpoints(estimate: Estimate) -> Iterator[Line]:
    """Yield the lines about saving, and about what failures cost."""
    plan, cost = estimate.goodput, estimate.cost
    storage = estimate.assumptions.storage_bytes_per_s / 1e9
    yield Line(
        group="checkpoints",
        key="checkpoint_bytes",
        name="size",
        value=cost.checkpoint_bytes,
        text=render_bytes(cost.checkpoint_bytes),
        source="12·N: fp32 weights and two moments (docs/checkpoints.md)",
    )
    yield Line(
        group="checkpoints",
        key="interval_s",
        name="best interval",
        value=plan.interval_s,
        text=render_duration(plan.interval_s),
        source=(
            f"checkpoint.every_steps={estimate.interval_steps}: "
            if estimate.interval_steps < estimate.steps
            else "longer than the run: "
        )
        + ("the write's own time, longer than " if plan.bound_by_write else "")
        + f"√(2·C·M) (Young, Daly): C = {render_duration(plan.stall_s)} stall, the write takes "
        f"{render_duration(plan.write_s)} at {storage:g} GB/s (--storage)",
    )
    yield Line(
        group="checkpoints",
        key="failure_s",
        name="between failures",
        value=plan.failure_s,
        text=render_duration(plan.failure_s),
        source=f"M = {FAILURE_GPU_HOURS:,.0f} GPU-hours / GPUs (Llama 3: 419 in 54 days on 16,384)",
    )
    yield Line(
        group="checkpoints", key="goodput", name="goodput", value=plan.share,
        text=f"{plan.share:.2%}",
        source=f"stalls, half an interval and {render_duration(plan.restart_s)} restart a failure",
    )  # fmt: skip


def describe_money(estimate: Estimate) -> Iterator[Line]:
    """Yield a line for each way to pay, what is unknown among them."""
    hours = estimate.expected_s / 3600
    own = estimate.assumptions.usd_per_gpu_hour
    if own is not None:
        yield Line(
            group="money", key="own_usd", name="your price", value=own * estimate.gpu_hours,
            text=render_usd(own * estimate.gpu_hours),
            source=f"{render_usd(own)} a GPU-hour, given",
        )  # fmt: skip
    for offer in estimate.offers:
        what = f"{offer.machines} x {offer.machine}"
        on_demand = offer.on_demand_usd(hours)
        yield Line(
            group="money", key=f"{offer.provider}_on_demand_usd",
            name=f"{offer.provider} on demand", value=on_demand, text=render_usd(on_demand),
            source=f"{what}, ${offer.on_demand_usd_per_hour:g}/h each: {offer.source}",
        )  # fmt: skip
        spot = offer.spot_usd(hours)
        yield Line(
            group="money", key=f"{offer.provider}_spot_usd", name=f"{offer.provider} spot",
            value=spot, text="unknown" if spot is None else render_usd(spot),
            source=offer.spot_source if spot is None
            else f"${offer.spot_usd_per_hour:g}/h each: {offer.spot_source}",
        )  # fmt: skip
    if not estimate.offers:
        what = estimate.cluster.instance or f"machine with {estimate.cluster.gpu.name}"
        yield Line(
            group="money", key="usd", name="price", value=None, text="unknown",
            source=f"no price of a {what} in prices.toml; give --usd-per-gpu-hour",
        )  # fmt: skip
