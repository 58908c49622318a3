"""Does the plan hold? If not: by how much, and what would help."""

from __future__ import annotations

from dataclasses import dataclass

from hpctrain.estimate.accumulation import hint_accumulation
from hpctrain.estimate.band import Band, Range, find_band
from hpctrain.estimate.memory import MEMORY_ERROR, RESERVE_BYTES
from hpctrain.estimate.memory_advice import advise_memory
from hpctrain.estimate.plan import Estimate
from hpctrain.estimate.quantities import (
    render_bytes,
    render_count,
    render_duration,
    render_usd,
)
from hpctrain.estimate.smallest import Goals

# Below this a hint names the accumulation that would reach it.
GOOD_EFFICIENCY = 0.85
HOLDS, TIGHT, UNCERTAIN, NO = "holds", "tight", "holds only if", "no"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One goal, or the memory.

    Args:
        kind: ``holds`` over the whole band; ``tight`` (memory alone); ``holds only if``, where the
            limit lies within the band; ``no``.
        holds: whether it does by the expected value.
        words: the arithmetic.
        advice: what would help; empty where it holds.
        low, high: the band of what is judged, in the unit of the goal.
        odds: that it holds, if the truth is anywhere in the band.
    """

    goal: str
    kind: str
    holds: bool
    words: str
    advice: str = ""
    low: float | None = None
    high: float | None = None
    odds: float | None = None


def judge(estimate: Estimate, goals: Goals) -> tuple[Verdict, ...]:
    """Return a verdict for the memory and for each goal."""
    band = find_band(estimate)
    found = [_judge_memory(estimate)]
    if not estimate.goodput.share:
        found.append(_judge_goodput(estimate))
    if goals.tokens_per_s is not None:
        found.append(_judge_rate(estimate, band, goals.tokens_per_s))
    if goals.efficiency is not None:
        found.append(_judge_efficiency(estimate, band, goals.efficiency))
    if goals.deadline_s is not None:
        found.append(_judge_deadline(estimate, band, goals.deadline_s))
    if goals.budget_usd is not None:
        found.append(_judge_budget(estimate, band, goals.budget_usd))
    return tuple(found)


def _judge_memory(estimate: Estimate) -> Verdict:
    memory, has = estimate.memory, estimate.cluster.gpu.memory_bytes
    words = (
        f"{render_bytes(memory.peak_bytes)} of tensors + {render_bytes(RESERVE_BYTES)} "
        f"reserve = {render_bytes(memory.needed_bytes)}, of {render_bytes(has)}"
    )
    low = memory.peak_bytes * (1 - MEMORY_ERROR) + RESERVE_BYTES
    range_ = {"low": low, "high": memory.at_most_bytes}
    if estimate.fits and not estimate.tight:
        return Verdict(goal="memory", kind=HOLDS, holds=True, words=words, **range_)
    advice = advise_memory(estimate)
    if estimate.fits:
        words += f"; {MEMORY_ERROR:.0%} more than estimated does not fit"
        return Verdict(
            goal="memory", kind=TIGHT, holds=True, words=words, advice=advice, **range_
        )  # fmt: skip
    advice = advice or "no setting of ours helps: take a GPU with more memory"
    return Verdict(goal="memory", kind=NO, holds=False, words=words, advice=advice, **range_)


def _judge_goodput(estimate: Estimate) -> Verdict:
    plan = estimate.goodput
    words = (
        f"none: a failure every {render_duration(plan.failure_s)} costs "
        f"{render_duration(plan.restart_s + plan.interval_s / 2 + plan.write_s)}, most of it for "
        f"a checkpoint of {render_bytes(estimate.cost.checkpoint_bytes)}"
    )
    return Verdict(goal="goodput", kind=NO, holds=False, words=words, advice="faster --storage")


def _verdict(
    goal: str, range_: Range, holds: bool, odds: float, words: str, condition: str, advice: str
) -> Verdict:
    """Return the verdict that a band and the odds come to."""
    kind = HOLDS if odds >= 1 else UNCERTAIN if odds > 0 else NO
    if kind == UNCERTAIN:
        words = f"{condition}; odds about {odds:.0%} over the band: {words}"
    return Verdict(
        goal=goal, kind=kind, holds=holds if kind == UNCERTAIN else kind == HOLDS, words=words,
        advice="" if kind == HOLDS else advice, low=range_.low, high=range_.high, odds=odds,
    )  # fmt: skip


def _judge_rate(estimate: Estimate, band: Band, tokens_per_s: float) -> Verdict:
    speed, gpus = estimate.speed, estimate.cluster.gpus
    share = tokens_per_s / speed.ceiling_tokens_per_s
    per_gpu = f" ({render_count(speed.ceiling_tokens_per_s / gpus)} a GPU)" if gpus > 1 else ""
    found = band.tokens_per_s
    words = (
        f"{render_count(tokens_per_s)} tokens/s would be {share:.0%} MFU: the ceiling is "
        f"{_peak_words(estimate)} / {render_count(estimate.cost.flops_per_token)} FLOP a token = "
        f"{render_count(speed.ceiling_tokens_per_s)} tokens/s{per_gpu}; expected are "
        f"{render_count(found.expected)}, {render_count(found.low)} to {render_count(found.high)}"
    )
    if share > 1:
        return _verdict(
            "rate", found, False, 0.0, f"impossible: {words}", "",
            f"more than {share:.1f} times as many GPUs",
        )  # fmt: skip
    more = tokens_per_s / speed.tokens_per_s
    return _verdict(
        "rate", found, tokens_per_s <= speed.tokens_per_s, found.odds_from(tokens_per_s), words,
        f"a step takes at most {render_duration(speed.tokens_per_step / tokens_per_s)}",
        f"{max(1.0, more):.1f} times the GPUs, or a higher MFU, measured",
    )  # fmt: skip


def _judge_efficiency(estimate: Estimate, band: Band, efficiency: float) -> Verdict:
    speed, found = estimate.speed, band.efficiency
    gathering = (
        f", {render_duration(speed.gather_s)} to gather the sharded weights"
        if speed.gather_s else ""
    )  # fmt: skip
    words = (
        f"{found.expected:.0%} predicted, {found.low:.0%} to {found.high:.0%}, {efficiency:.0%} "
        f"wanted: a step computes {render_duration(speed.compute_s)} and waits "
        f"{render_duration(speed.exposed_s)} for the exchange{gathering}, "
        f"{render_duration(speed.waiting_s)} for the slowest rank"
    )
    holds = speed.efficiency >= efficiency
    rest_s = speed.compute_s * (1 / efficiency - 1)
    return _verdict(
        "efficiency", found, holds, found.odds_from(efficiency), words,
        f"a step waits at most {render_duration(rest_s)} in all",
        "" if holds or efficiency >= 1 else hint_accumulation(estimate, efficiency),
    )  # fmt: skip


def _judge_deadline(estimate: Estimate, band: Band, deadline_s: float) -> Verdict:
    total = f"{estimate.job.tokens * estimate.cost.flops_per_token:.3g}"
    found = band.expected_s
    words = (
        f"{render_duration(found.expected)} expected, {render_duration(found.low)} to "
        f"{render_duration(found.high)}, {render_duration(deadline_s)} allowed: "
        f"{total} FLOP; at 100 % MFU, {_peak_words(estimate)}, it takes "
        f"{render_duration(estimate.ceiling_s)}"
    )
    needed = estimate.ceiling_s / deadline_s
    holds = found.expected <= deadline_s
    if needed > 1:
        words = f"impossible, {needed:.1f} times the peak would be needed: {words}"
    elif not holds:
        words += f"; {needed:.0%} MFU would be needed, exchange and failures included"
    step_s = deadline_s * estimate.goodput.share / estimate.steps
    odds = 0.0 if needed > 1 else found.odds_up_to(deadline_s)
    return _verdict(
        "deadline", found, holds, odds, words,
        f"a step takes at most {render_duration(step_s)} (expected are "
        f"{render_duration(estimate.speed.step_s)})", "",
    )  # fmt: skip


def _judge_budget(estimate: Estimate, band: Band, budget_usd: float) -> Verdict:
    if estimate.usd is None or band.usd is None:
        return Verdict(
            goal="budget", kind=NO, holds=False,
            words=f"{render_usd(budget_usd)} allowed; no price is known for nodes of "
            f"{estimate.cluster.instance or estimate.cluster.shape_words}",
            advice="give yours: --usd-per-gpu-hour, or --prices FILE; or take a machine that is "
            "sold so: --instance",
        )  # fmt: skip
    found = band.usd
    words = (
        f"{render_usd(found.expected)}, {render_usd(found.low)} to {render_usd(found.high)}, for "
        f"{estimate.gpu_hours:,.0f} GPU-hours on demand, {render_usd(budget_usd)} allowed"
    )
    tokens = estimate.job.tokens * budget_usd / estimate.usd if estimate.usd else 0.0
    return _verdict(
        "budget", found, found.expected <= budget_usd, found.odds_up_to(budget_usd), words,
        f"it takes at most {estimate.gpu_hours * budget_usd / (found.expected or 1.0):,.0f} "
        "GPU-hours",
        f"on this cluster it pays for {render_count(tokens)} tokens",
    )  # fmt: skip


def _peak_words(estimate: Estimate) -> str:
    peak = estimate.cluster.gpu.peak_flops(estimate.job.precision)
    assert peak is not None
    return f"{estimate.cluster.gpus} x {peak / 1e12:g} TFLOP/s"
