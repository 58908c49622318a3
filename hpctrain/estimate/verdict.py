"""Does the plan hold? If not: by how much, and what would help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hpctrain.estimate.memory import RESERVE_BYTES, estimate_memory
from hpctrain.estimate.plan import Estimate
from hpctrain.estimate.quantities import (
    render_bytes,
    render_count,
    render_duration,
    render_usd,
)
from hpctrain.estimate.smallest import Goals
from hpctrain.estimate.speed import accumulation_for, with_accumulation

# Below this a hint names the accumulation that would reach it.
GOOD_EFFICIENCY = 0.85
LARGE_BUCKET_MB = 200.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One goal, or the memory: held or not.

    Args:
        words: the arithmetic.
        advice: what would help; empty where it holds.
    """

    goal: str
    holds: bool
    words: str
    advice: str = ""


def judge(estimate: Estimate, goals: Goals) -> tuple[Verdict, ...]:
    """Return a verdict for the memory and for each goal."""
    found = [_judge_memory(estimate)]
    if not estimate.goodput.share:
        found.append(_judge_goodput(estimate))
    if goals.tokens_per_s is not None:
        found.append(_judge_rate(estimate, goals.tokens_per_s))
    if goals.efficiency is not None:
        found.append(_judge_efficiency(estimate, goals.efficiency))
    if goals.deadline_s is not None:
        found.append(_judge_deadline(estimate, goals.deadline_s))
    if goals.budget_usd is not None:
        found.append(_judge_budget(estimate, goals.budget_usd))
    return tuple(found)


def hint_accumulation(estimate: Estimate, efficiency: float) -> str:
    """Return which accumulation reaches an efficiency, and what it does to the batch."""
    job, cluster, mfu = estimate.job, estimate.cluster, estimate.assumptions.mfu
    accum = accumulation_for(job, cluster, mfu, efficiency)
    if accum is None:
        return f"no accumulation reaches {efficiency:.0%}: the slowest rank is waited for too long"
    then = with_accumulation(job, cluster, accum)
    # Fewer messages and fewer bytes: both shorten the exchange itself.
    lighter = replace(job, bucket_mb=max(job.bucket_mb, LARGE_BUCKET_MB), compression="fp16")
    with_less = accumulation_for(lighter, cluster, mfu, efficiency)
    also = (
        f"; {with_less} with comm.bucket_mb={lighter.bucket_mb:g} and comm.compression=fp16"
        if with_less is not None and with_less < accum else ""
    )  # fmt: skip
    return (
        f"accumulate {accum} micro-batches a step (train.grad_accum_steps, now {job.accum}): "
        f"{efficiency:.0%}, with a global batch of "
        f"{render_count(then.tokens_per_step(cluster.gpus))} tokens in place of "
        f"{render_count(estimate.speed.tokens_per_step)}{also}"
    )


def _judge_memory(estimate: Estimate) -> Verdict:
    has, needs = estimate.cluster.gpu.memory_bytes, estimate.memory.needed_bytes
    words = (
        f"{render_bytes(estimate.memory.peak_bytes)} of tensors + {render_bytes(RESERVE_BYTES)} "
        f"reserve = {render_bytes(needs)}, of {render_bytes(has)}"
    )
    if estimate.fits:
        return Verdict(goal="memory", holds=True, words=words)
    ways = list(_memory_advice(estimate))
    advice = " or ".join(ways) if ways else "no setting of ours helps: take a GPU with more memory"
    return Verdict(goal="memory", holds=False, words=words, advice=advice)


def _judge_goodput(estimate: Estimate) -> Verdict:
    plan = estimate.goodput
    words = (
        f"none: a failure every {render_duration(plan.failure_s)} costs "
        f"{render_duration(plan.restart_s + plan.interval_s / 2 + plan.write_s)}, most of it for "
        f"a checkpoint of {render_bytes(estimate.cost.checkpoint_bytes)}"
    )
    return Verdict(goal="goodput", holds=False, words=words, advice="faster --storage")


def _memory_advice(estimate: Estimate) -> Iterator[str]:
    """Yield the changes that make it fit, each alone; then all of them together."""
    job, cluster = estimate.job, estimate.cluster
    load = job.load(cluster.gpus)

    def fits(**changes: object) -> bool:
        then = estimate_memory(job.size, replace(load, **changes))
        return then.needed_bytes <= cluster.gpu.memory_bytes

    smaller = [size for size in range(load.micro_batch - 1, 0, -1) if fits(micro_batch=size)]
    if smaller:
        accum = -(-load.sequences // smaller[0])
        yield f"--accum {accum} (micro-batches of {-(-load.sequences // accum)})"
    if not load.recomputes and fits(recomputes=True):
        yield "--set train.activation_checkpointing=true"
    if not load.sharded and load.ranks > 1 and fits(sharded=True):
        yield "--set optim.sharded=true"
    everything = {"micro_batch": 1, "recomputes": True, "sharded": load.ranks > 1}
    if not smaller and not fits(recomputes=True) and fits(**everything):
        yield "micro-batches of 1 with train.activation_checkpointing and optim.sharded"


def _judge_rate(estimate: Estimate, tokens_per_s: float) -> Verdict:
    speed, gpus = estimate.speed, estimate.cluster.gpus
    share = tokens_per_s / speed.ceiling_tokens_per_s
    per_gpu = f" ({render_count(speed.ceiling_tokens_per_s / gpus)} a GPU)" if gpus > 1 else ""
    words = (
        f"{render_count(tokens_per_s)} tokens/s would be {share:.0%} MFU: the ceiling is "
        f"{_peak_words(estimate)} / {render_count(estimate.cost.flops_per_token)} FLOP a token = "
        f"{render_count(speed.ceiling_tokens_per_s)} tokens/s{per_gpu}; expected are "
        f"{render_count(speed.tokens_per_s)}"
    )
    if share > 1:
        return Verdict(goal="rate", holds=False, words=f"impossible: {words}",
                       advice=f"more than {share:.1f} times as many GPUs")  # fmt: skip
    holds = tokens_per_s <= speed.tokens_per_s
    more = tokens_per_s / speed.tokens_per_s
    advice = "" if holds else f"{more:.1f} times the GPUs, or a higher MFU, measured"
    return Verdict(goal="rate", holds=holds, words=words, advice=advice)


def _judge_efficiency(estimate: Estimate, efficiency: float) -> Verdict:
    speed = estimate.speed
    holds = speed.efficiency >= efficiency
    words = (
        f"{speed.efficiency:.0%} predicted, {efficiency:.0%} wanted: a step computes "
        f"{render_duration(speed.compute_s)} and waits {render_duration(speed.exposed_s)} for "
        f"the exchange, {render_duration(speed.waiting_s)} for the slowest rank"
    )
    advice = "" if holds or efficiency >= 1 else hint_accumulation(estimate, efficiency)
    return Verdict(goal="efficiency", holds=holds, words=words, advice=advice)


def _judge_deadline(estimate: Estimate, deadline_s: float) -> Verdict:
    total = f"{estimate.job.tokens * estimate.cost.flops_per_token:.3g}"
    words = (
        f"{render_duration(estimate.expected_s)} expected, {render_duration(deadline_s)} allowed: "
        f"{total} FLOP; at 100 % MFU, {_peak_words(estimate)}, it takes "
        f"{render_duration(estimate.ceiling_s)}"
    )
    if estimate.expected_s <= deadline_s:
        return Verdict(goal="deadline", holds=True, words=words)
    needed = estimate.ceiling_s / deadline_s
    if needed > 1:
        words = f"impossible, {needed:.1f} times the peak would be needed: {words}"
    else:
        words += f"; {needed:.0%} MFU would be needed, exchange and failures included"
    return Verdict(goal="deadline", holds=False, words=words)


def _judge_budget(estimate: Estimate, budget_usd: float) -> Verdict:
    if estimate.usd is None:
        return Verdict(
            goal="budget", holds=False,
            words=f"{render_usd(budget_usd)} allowed; no price is known for "
            f"{estimate.cluster.instance or estimate.cluster.gpu.name}",
            advice="give yours: --usd-per-gpu-hour, or --prices FILE",
        )  # fmt: skip
    words = (
        f"{render_usd(estimate.usd)} for {estimate.gpu_hours:,.0f} GPU-hours on demand, "
        f"{render_usd(budget_usd)} allowed"
    )
    if estimate.usd <= budget_usd:
        return Verdict(goal="budget", holds=True, words=words)
    tokens = render_count(estimate.job.tokens * budget_usd / estimate.usd)
    advice = f"on this cluster it pays for {tokens} tokens"
    return Verdict(goal="budget", holds=False, words=words, advice=advice)


def _peak_words(estimate: Estimate) -> str:
    peak = estimate.cluster.gpu.peak_flops(estimate.job.precision)
    assert peak is not None
    return f"{estimate.cluster.gpus} x {peak / 1e12:g} TFLOP/s"
