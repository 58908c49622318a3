"""The lines about what a run costs besides computing: checkpoints, failures, money."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from hpctrain.estimate.band import Band
from hpctrain.estimate.goodput import FAILURE_GPU_HOURS
from hpctrain.estimate.line import Line
from hpctrain.estimate.money import Offer
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


def describe_money(estimate: Estimate, band: Band) -> Iterator[Line]:
    """Yield a line for each way to pay, what is unknown among them."""
    own = estimate.assumptions.usd_per_gpu_hour
    if own is not None:
        yield Line(
            group="money", key="own_usd", name="your price", value=estimate.usd,
            text=render_usd(estimate.usd or 0.0),
            source=f"{render_usd(own)} a GPU-hour, given",
        )  # fmt: skip
    if estimate.offer is None:
        yield Line(
            group="money", key="usd", name="price", value=None, text="unknown",
            source="no price of a node of "
            f"{estimate.cluster.instance or estimate.cluster.shape_words} in prices.toml; give "
            "--usd-per-gpu-hour",
        )  # fmt: skip
    for offer in estimate.offers:
        yield from _describe_offer(estimate, band, offer)


def _describe_offer(estimate: Estimate, band: Band, offer: Offer) -> Iterator[Line]:
    hours = estimate.expected_s / 3600
    what = f"{offer.machines} x {offer.machine}, ${offer.on_demand_usd_per_hour:g}/h each"
    if offer.other_shape:
        an_hour = offer.on_demand_usd(1.0)
        yield Line(
            group="money", key=f"{offer.provider}_other_nodes_usd_per_hour",
            name=f"{offer.provider}, other nodes", value=an_hour, text=f"({render_usd(an_hour)}/h)",
            source=f"{what}; nodes of {offer.gpus} GPUs are another cluster, of another speed: see "
            f"--instance {shlex.quote(offer.machine)}; in no verdict: {offer.source}",
        )  # fmt: skip
        return
    on_demand = offer.on_demand_usd(hours)
    low, high = (offer.on_demand_usd(each / 3600) for each in
                 (band.expected_s.low, band.expected_s.high))  # fmt: skip
    yield Line(
        group="money", key=f"{offer.provider}_on_demand_usd",
        name=f"{offer.provider} on demand", value=on_demand, text=render_usd(on_demand),
        source=f"{what}; {render_usd(low)} to {render_usd(high)}: {offer.source}",
    )  # fmt: skip
    spot = offer.spot_usd(hours)
    yield Line(
        group="money", key=f"{offer.provider}_spot_usd", name=f"{offer.provider} spot",
        value=spot, text="unknown" if spot is None else render_usd(spot),
        source=offer.spot_source if spot is None
        else f"${offer.spot_usd_per_hour:g}/h each: {offer.spot_source}",
    )  # fmt: skip
