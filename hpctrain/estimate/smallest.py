"""Which is the smallest cluster of such nodes and this link that holds the goals?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hpctrain.estimate.band import find_band
from hpctrain.estimate.money import Offer, find_offers
from hpctrain.estimate.nodes import LARGEST_NODE
from hpctrain.estimate.plan import Estimate, plan_estimate
from hpctrain.estimate.quantities import render_count, render_duration, render_usd

MOST_NODES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Goals:
    """What was asked of the plan; None for nothing.

    Args:
        tokens_per_s: a rate that somebody claims or counts on, all GPUs together.
        efficiency: the least scaling efficiency, 0 to 1.
    """

    deadline_s: float | None = None
    budget_usd: float | None = None
    tokens_per_s: float | None = None
    efficiency: float | None = None


def meets(estimate: Estimate, goals: Goals) -> bool:
    """Return whether the memory and every goal hold, by the expected values."""
    return (
        estimate.fits
        and (goals.deadline_s is None or estimate.expected_s <= goals.deadline_s)
        and (
            goals.budget_usd is None
            or (estimate.usd is not None and estimate.usd <= goals.budget_usd)
        )
        and (goals.efficiency is None or estimate.speed.efficiency >= goals.efficiency)
        and (goals.tokens_per_s is None or estimate.speed.tokens_per_s >= goals.tokens_per_s)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What would do instead of a plan that does not hold: words, and the cluster if there is one.

    Args:
        cluster: that would do; None where none does.
    """

    words: str
    cluster: Estimate | None = None


def advise_cluster(estimate: Estimate, goals: Goals) -> Advice:
    """Return, for a plan that does not hold, the smallest cluster that would; or say why none."""
    smallest, words = find_smallest(estimate, goals)
    if smallest is not None:
        return Advice(words=f"the smallest that would do: {words}", cluster=smallest)
    if estimate.job.global_sequences is not None:
        sequences = estimate.job.sequences_per_rank(estimate.cluster.gpus)
        growing = replace(estimate.job, global_sequences=None, rank_sequences=sequences)
        smallest, grown_words = find_smallest(replace(estimate, job=growing), goals)
        if smallest is not None:
            return Advice(
                words=f"with that global batch {words}; with a batch that grows with the GPUs: "
                f"{grown_words}",
                cluster=smallest,
            )
    alone = ""
    if goals.deadline_s is not None and goals.budget_usd is not None:
        of_time, time_words = find_smallest(estimate, replace(goals, budget_usd=None))
        of_money, money_words = find_smallest(estimate, replace(goals, deadline_s=None))
        alone += f"; for the deadline alone: {time_words}" if of_time else ""
        alone += f"; for the budget alone: {money_words}" if of_money else ""
    which = "of such nodes" if estimate.assumptions.chooses_shape else "of these nodes"
    return Advice(words=f"{which} and this link {words}{alone}")


def find_smallest(estimate: Estimate, goals: Goals) -> tuple[Estimate | None, str]:
    """Return the smallest cluster of the same link that holds all goals by expectation; and words.

    The nodes are of the same kind; where nobody has said of which, one node of 1, 2 or 4 GPUs, or
    nodes of 8. The micro-batch stays. The global batch stays where it was asked for, so that each
    GPU gets less of it; else it grows with the GPUs.
    """
    shape = _shape(estimate)
    most = _most_nodes(estimate, shape)
    if estimate.assumptions.chooses_shape:
        for gpus in (1, 2, 4):
            if gpus <= _most_gpus(estimate) and meets(found := _at(estimate, 1, gpus), goals):
                return found, _words_of(found)
    for nodes in range(_least_nodes(estimate, goals, shape), most + 1):
        candidate = _at(estimate, nodes, shape)
        if meets(candidate, goals):
            return candidate, _words_of(candidate)
    if not most:
        return None, "none: the global batch has fewer sequences than one node has GPUs"
    grid = [2**power for power in range(most.bit_length())]
    tried = (_at(estimate, nodes, shape) for nodes in (*grid, most))
    best = min(tried, key=lambda each: each.expected_s)
    why = "" if most == MOST_NODES else (
        f" (the global batch of {estimate.job.global_sequences} sequences has none for more)"
    )  # fmt: skip
    return None, (
        f"none, up to {most:,} nodes of {shape}{why}: the quickest tried, "
        f"{best.cluster.nodes:,} nodes, takes {render_duration(best.expected_s)}"
        + (f" and {render_usd(best.usd)}" if best.usd is not None else "")
        + ("" if best.fits else ", and memory does not suffice on any")
    )


def _shape(estimate: Estimate) -> int:
    """Return the GPUs of a node of larger clusters."""
    cluster = estimate.cluster
    return LARGEST_NODE if estimate.assumptions.chooses_shape else cluster.gpus_per_node


def _most_gpus(estimate: Estimate) -> int:
    """Return how many GPUs the global batch has sequences for."""
    return estimate.job.global_sequences or MOST_NODES * LARGEST_NODE


def _most_nodes(estimate: Estimate, shape: int) -> int:
    """Return how many nodes the global batch has sequences for, up to MOST_NODES."""
    sequences = estimate.job.global_sequences
    return MOST_NODES if sequences is None else min(MOST_NODES, sequences // shape)


def _least_nodes(estimate: Estimate, goals: Goals, shape: int) -> int:
    """Return how many nodes it takes at least: without exchange and failures.

    More than MOST_NODES where no number of them can be cheap enough.
    """
    speed = estimate.speed
    node_tokens_per_s = speed.tokens_per_s / speed.efficiency / estimate.cluster.gpus * shape
    rates = [goals.tokens_per_s or 0.0]
    if goals.deadline_s is not None:
        rates.append(estimate.job.tokens / goals.deadline_s)
    same = replace(estimate, offers=_offers_of(estimate, shape))
    if goals.budget_usd is not None and (usd := _least_usd_per_gpu_hour(same, shape)) is not None:
        hours = estimate.job.tokens / node_tokens_per_s / 3600 * shape
        if usd * hours > goals.budget_usd:
            return MOST_NODES + 1
    return max(1, math.ceil(max(rates) / node_tokens_per_s))


def _offers_of(estimate: Estimate, shape: int) -> tuple[Offer, ...]:
    cluster = estimate.cluster
    return find_offers(
        estimate.assumptions.prices, cluster.gpu, 1, shape, cluster.instance
    )  # fmt: skip


def _least_usd_per_gpu_hour(estimate: Estimate, shape: int) -> float | None:
    if estimate.assumptions.usd_per_gpu_hour is not None:
        return estimate.assumptions.usd_per_gpu_hour
    if estimate.offer is None:
        return None
    return estimate.offer.on_demand_usd_per_hour / shape


def _at(estimate: Estimate, nodes: int, gpus_per_node: int) -> Estimate:
    job, cluster = estimate.job, estimate.cluster
    cluster_then = replace(cluster, nodes=nodes, gpus_per_node=gpus_per_node)
    sequences = job.sequences_per_rank(cluster_then.gpus)
    micro_batch = job.load(cluster.gpus).micro_batch
    # Where memory does not suffice, a plan that would do needs smaller micro-batches.
    return plan_estimate(
        replace(job, accum=-(-sequences // micro_batch)), cluster_then,
        replace(estimate.assumptions, chooses_accum=not estimate.fits),
    )  # fmt: skip


def _words_of(estimate: Estimate) -> str:
    cluster, band = estimate.cluster, find_band(estimate)
    money = "" if estimate.usd is None else f", {render_usd(estimate.usd)} on demand"
    link = "" if cluster.nodes == 1 else f"; link of a node: {cluster.inter.source}"
    return (
        f"{cluster.nodes} nodes x {cluster.gpus_per_node} = {cluster.gpus} {cluster.gpu.name}: "
        f"{render_duration(estimate.expected_s)} ({render_duration(band.expected_s.low)} to "
        f"{render_duration(band.expected_s.high)}){money}, scaling efficiency "
        f"{estimate.speed.efficiency:.0%}, global batch "
        f"{render_count(estimate.speed.tokens_per_step)} tokens, accumulation {estimate.job.accum}"
        f"{link}"
    )
