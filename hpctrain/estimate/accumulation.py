"""Which accumulation reaches an efficiency, and what does it do to the batch?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpctrain.estimate.band import find_band
from hpctrain.estimate.plan import Estimate, plan_estimate
from hpctrain.estimate.quantities import render_count
from hpctrain.estimate.speed import accumulation_for, with_accumulation

LARGE_BUCKET_MB = 200.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Accumulation:
    """An accumulation that reaches an efficiency by the expected values.

    Args:
        wanted: the efficiency that was to be reached, 0 to 1.
        accum: micro-batches a step; None where no number of them reaches it.
        lighter_accum: with large buckets and fp16 compression; None where that is no less.
        efficiency_low, efficiency_high: the band with `accum`.
    """

    wanted: float
    accum: int | None
    lighter_accum: int | None = None
    bucket_mb: float = LARGE_BUCKET_MB
    tokens_per_step: int | None = None
    efficiency_low: float | None = None
    efficiency_high: float | None = None


def find_accumulation(estimate: Estimate, efficiency: float) -> Accumulation:
    """Return the least accumulation that is so efficient; the micro-batch stays."""
    job, cluster, mfu = estimate.job, estimate.cluster, estimate.assumptions.mfu
    accum = accumulation_for(job, cluster, mfu, efficiency)
    if accum is None:
        return Accumulation(wanted=efficiency, accum=None)
    then = plan_estimate(
        with_accumulation(job, cluster, accum), cluster,
        replace(estimate.assumptions, chooses_accum=False),
    )  # fmt: skip
    band = find_band(then).efficiency
    # Fewer messages and fewer bytes: both shorten the exchange itself.
    lighter = replace(job, bucket_mb=max(job.bucket_mb, LARGE_BUCKET_MB), compression="fp16")
    with_less = accumulation_for(lighter, cluster, mfu, efficiency)
    helps = with_less is not None and with_less < accum
    return Accumulation(
        wanted=efficiency, accum=accum, lighter_accum=with_less if helps else None,
        bucket_mb=lighter.bucket_mb, tokens_per_step=then.speed.tokens_per_step,
        efficiency_low=band.low, efficiency_high=band.high,
    )  # fmt: skip


def hint_accumulation(estimate: Estimate, efficiency: float) -> str:
    """Return the same in words."""
    found = find_accumulation(estimate, efficiency)
    if found.accum is None or found.tokens_per_step is None:
        return f"no accumulation reaches {efficiency:.0%}: the slowest rank is waited for too long"
    also = (
        "" if found.lighter_accum is None else f"; {found.lighter_accum} with "
        f"comm.bucket_mb={found.bucket_mb:g} and comm.compression=fp16"
    )  # fmt: skip
    return (
        f"accumulate {found.accum} micro-batches a step (train.grad_accum_steps, now "
        f"{estimate.job.accum}): {efficiency:.0%} expected, {found.efficiency_low:.0%} to "
        f"{found.efficiency_high:.0%}, with a global batch of "
        f"{render_count(found.tokens_per_step)} tokens in place of "
        f"{render_count(estimate.speed.tokens_per_step)}{also}"
    )
