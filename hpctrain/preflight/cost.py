"""What would a failure have cost, had the run been started? Pure, but for reading price tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpctrain.errors import HpctrainError
from hpctrain.estimate.gpus import Gpu, read_gpus
from hpctrain.estimate.money import find_offers
from hpctrain.estimate.quantities import render_duration, render_usd
from hpctrain.preflight.checks.gpu_states import GPUS, host_gpus, wants_gpus
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.need import RunNeed
from hpctrain.preflight.verdict import FAIL, WARN, Verdict

CODE = "cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What all hosts of a run cost an hour, and who says so."""

    usd_per_hour: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """What a run takes.

    Args:
        devices: GPUs, or hosts where it computes on the CPU.
        unit: which of these.
        duration_s: of the whole run by the estimate; None where there is none.
        source: of the duration.
    """

    devices: int
    unit: str
    duration_s: float | None = None
    source: str = ""


def describe_cost(verdicts: Sequence[Verdict], stake: Stake, price: Price | None) -> Verdict | None:
    """Return what a preflight that failed has saved; None where nothing failed or is known.

    A run that is broken is mostly found out by its end, or by whoever looks next: what is told is
    the whole run, and without its duration an hour.
    """
    if not any(verdict.status == FAIL for verdict in verdicts):
        return None
    if stake.duration_s is None and price is None:
        return None
    words = "what failed above would have cost "
    if stake.duration_s is None:
        assert price is not None  # see above
        words += f"{render_usd(price.usd_per_hour)} an hour ({price.what})"
        return Verdict(CODE, WARN, f"{words}; no estimate of the run's duration")
    hours = stake.duration_s / 3600
    words += f"up to {_hours(stake.devices * hours)} {stake.unit}-hours"
    if price is not None:
        words += f", about {render_usd(price.usd_per_hour * hours)}"
    why = f"{stake.devices} {stake.unit}s for {render_duration(stake.duration_s)}, {stake.source}"
    return Verdict(CODE, WARN, f"{words} ({why}{f'; {price.what}' if price else ''})")


def plan_stake(fleet: Fleet, need: object) -> Stake:
    """Return what the run takes, by its estimate on the GPUs that were found."""
    gpus = {h: host_gpus(value).gpus for h, value in fleet.answers_of(GPUS.name).items()}
    names = Counter(gpu.name for each in gpus.values() for gpu in each)
    on_cpu = not names or any(wants_gpus(task) is False for task in fleet.tasks.values())
    if on_cpu:
        return Stake(devices=len(fleet.hosts), unit="host")
    stake = Stake(devices=fleet.np, unit="GPU")
    gpu = find_gpu_of_driver(names.most_common(1)[0][0])
    if not isinstance(need, RunNeed) or gpu is None:
        return stake
    duration_s = estimate_duration_s(need, gpu, fleet)
    if duration_s is None:
        return stake
    return Stake(
        devices=fleet.np, unit="GPU", duration_s=duration_s, source=f"hpctrain estimate, {gpu.name}"
    )


def estimate_duration_s(need: RunNeed, gpu: Gpu, fleet: Fleet) -> float | None:
    """Return how long the run takes by the estimate; None where it has no figure for it."""
    from hpctrain.clusters.cloud.prices import read_prices
    from hpctrain.estimate.measured import Wanted, choose_mfu
    from hpctrain.estimate.model import cost_model
    from hpctrain.estimate.nodes import plan_cluster
    from hpctrain.estimate.plan import Assumptions, plan_estimate

    job = need.job
    each = max(task.ranks for task in fleet.tasks.values())
    try:
        # The whole nodes that hold the ranks: the estimate knows equal ones alone.
        cluster = plan_cluster(gpu, each * -(-fleet.np // each), each, None, None)
        wanted = Wanted(
            gpu=gpu, params=cost_model(job.size).params, precision=job.precision,
            seq_len=job.size.seq_len, compiled=job.compiled,
        )  # fmt: skip
        mfu = choose_mfu(wanted)
        if mfu is None or gpu.peak_flops(job.precision) is None:
            return None
        estimate = plan_estimate(job, cluster, Assumptions(mfu=mfu, prices=read_prices()))
    except HpctrainError:
        return None
    return estimate.expected_s if estimate.expected_s != float("inf") else None


def find_gpu_of_driver(name: str) -> Gpu | None:
    """Return the GPU that the estimate knows under the driver's name.

    >>> find_gpu_of_driver("NVIDIA H200").name
    'h200'
    """
    return next((gpu for gpu in read_gpus().values() if gpu.device == name), None)


def find_price(fleet: Fleet, cloud: str | None, table: Mapping[str, Any]) -> Price | None:
    """Return the list price of the hosts in a cloud; None where no machine there is as they are.

    Args:
        cloud: ``aws`` or ``gcp``.
        table: as :func:`hpctrain.clusters.cloud.prices.read_prices` gives it.
    """
    shapes = {
        tuple(gpu.name for gpu in host_gpus(value).gpus)
        for value in fleet.answers_of(GPUS.name).values()
    }
    if cloud is None or len(shapes) != 1 or not (names := shapes.pop()) or len(set(names)) > 1:
        return None
    gpu = find_gpu_of_driver(names[0])
    if gpu is None:
        return None
    for offer in find_offers(table, gpu, len(fleet.hosts), len(names)):
        if offer.provider == cloud and not offer.other_shape:
            what = f"{offer.machines} x {offer.machine} on {cloud}, {offer.source}"
            return Price(usd_per_hour=offer.on_demand_usd(1.0), what=what)
    return None


def _hours(value: float) -> str:
    """Return a number of hours in two digits or more.

    >>> _hours(64.2), _hours(0.034), _hours(12345.6)
    ('64', '0.034', '12,346')
    """
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
