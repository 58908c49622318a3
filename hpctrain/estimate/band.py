"""Between which values do time, money and efficiency lie, by what is known of links and MFU?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hpctrain.estimate.plan import Estimate
from hpctrain.estimate.speed import gather_of, model_step
from hpctrain.scaling_model.predict import predict_step
from hpctrain.scaling_model.topology import Topology


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """The expected value and the band around it."""

    low: float
    expected: float
    high: float

    def odds_up_to(self, limit: float) -> float:
        """Return the odds that the value is at most `limit`: half on either side of the expected.

        Within each half every value counts alike, for nobody knows better.

        >>> found = Range(low=80.0, expected=100.0, high=120.0)
        >>> [found.odds_up_to(limit) for limit in (70, 90, 100, 110, 130)]
        [0.0, 0.25, 0.5, 0.75, 1.0]
        """
        if limit >= self.high:
            return 1.0
        if limit < self.low:
            return 0.0
        if limit >= self.expected:
            return 0.5 + 0.5 * (limit - self.expected) / (self.high - self.expected)
        return 0.5 * (limit - self.low) / (self.expected - self.low)

    def odds_from(self, limit: float) -> float:
        """Return the odds that the value is at least `limit`."""
        if limit <= self.low:
            return 1.0
        return 1.0 - self.odds_up_to(limit)

    def times(self, factor: float) -> Range:
        """Return the range of a multiple."""
        return Range(
            low=self.low * factor, expected=self.expected * factor, high=self.high * factor
        )

    def at(self, value: float) -> Range:
        """Return a range of one value."""
        return Range(low=value, expected=value, high=value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Ranges of one estimate.

    Args:
        mfu: as assumed, by its own uncertainty.
        efficiency: as the scaling model has it, with a sharded optimizer's gathering.
        usd: None where no price is known.
    """

    mfu: Range
    efficiency: Range
    tokens_per_s: Range
    step_s: Range
    training_s: Range
    expected_s: Range
    gpu_hours: Range
    usd: Range | None


def find_band(estimate: Estimate) -> Band:
    """Return the ranges. None goes beyond what the GPUs compute at 100 % MFU."""
    speed, mfu = estimate.speed, estimate.assumptions.mfu
    ceiling_s = speed.tokens_per_step / speed.ceiling_tokens_per_s
    step_s, efficiency = _step_and_efficiency(estimate)
    step_s = replace(step_s, low=min(max(step_s.low, ceiling_s), speed.step_s))
    a_second = 1 / step_s.low, 1 / speed.step_s, 1 / step_s.high
    rates = [speed.tokens_per_step * each for each in a_second]
    share = estimate.goodput.share
    expected_s = step_s.times(estimate.steps / share if share else float("inf"))
    hours = expected_s.times(estimate.cluster.gpus / 3600)
    usd = None
    if estimate.usd is not None:
        never = 0.0 if estimate.usd == 0 else float("inf")
        usd = hours.times(estimate.usd / estimate.gpu_hours) if share else hours.at(never)
    return Band(
        mfu=Range(
            low=mfu.value * (1 - mfu.error), expected=mfu.value,
            high=min(1.0, mfu.value * (1 + mfu.error)),
        ),
        efficiency=efficiency,
        tokens_per_s=Range(low=rates[2], expected=rates[1], high=rates[0]),
        step_s=step_s, training_s=step_s.times(estimate.steps), expected_s=expected_s,
        gpu_hours=hours, usd=usd,
    )  # fmt: skip


def _step_and_efficiency(estimate: Estimate) -> tuple[Range, Range]:
    speed, job = estimate.speed, estimate.job
    topology = estimate.cluster.topology
    step = model_step(job, estimate.cluster, estimate.assumptions.mfu)
    found = predict_step(step, topology)
    quick_s, slow_s = (
        gather_of(job, _with_links(topology, edge)) for edge in (lambda e: 1 + e, _slower)
    )
    alone_s = step.alone_s
    low_s, high_s = found.low_s + quick_s, found.high_s + slow_s
    return (
        Range(low=low_s, expected=speed.step_s, high=max(high_s, speed.step_s)),
        Range(
            low=min(speed.efficiency, alone_s / (alone_s / found.efficiency_low + slow_s)),
            expected=speed.efficiency,
            high=max(speed.efficiency, alone_s / (alone_s / found.efficiency_high + quick_s)),
        ),
    )


def _slower(error: float) -> float:
    return 1 / (1 + error)


def _with_links(topology: Topology, edge: Callable[[float], float]) -> Topology:
    inter, intra = topology.inter, topology.intra
    return replace(
        topology, inter=inter.scaled(edge(inter.error)), intra=intra.scaled(edge(intra.error))
    )
