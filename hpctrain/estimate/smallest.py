"""Which is the smallest cluster of the same nodes and link that holds the goals?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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
    """Return whether the memory and every goal hold."""
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


def advise_cluster(estimate: Estimate, goals: Goals) -> str:
    """Return, for a plan that does not hold, the smallest cluster that would; or say why none."""
    smallest, words = find_smallest(estimate, goals)
    if smallest is not None:
        return f"the smallest that would do: {words}"
    if estimate.job.global_sequences is not None:
        sequences = estimate.job.sequences_per_rank(estimate.cluster.gpus)
        growing = replace(estimate.job, global_sequences=None, rank_sequences=sequences)
        smallest, grown_words = find_smallest(replace(estimate, job=growing), goals)
        if smallest is not None:
            return (
                f"with that global batch {words}; with a batch that grows with the GPUs: "
                f"{grown_words}"
            )
    alone = ""
    if goals.deadline_s is not None and goals.budget_usd is not None:
        of_time, time_words = find_smallest(estimate, replace(goals, budget_usd=None))
        of_money, money_words = find_smallest(estimate, replace(goals, deadline_s=None))
        alone += f"; for the deadline alone: {time_words}" if of_time else ""
        alone += f"; for the budget alone: {money_words}" if of_money else ""
    return f"of these nodes and this link {words}{alone}"


def find_smallest(estimate: Estimate, goals: Goals) -> tuple[Estimate | None, str]:
    """Return the fewest nodes, of the same kind and link, that hold all goals; and words.

    The micro-batch stays. The global batch stays where it was asked for, so that each GPU gets
    less of it; else it grows with the GPUs.
    """
    most = _most_nodes(estimate)
    for nodes in range(_least_nodes(estimate, goals), most + 1):
        candidate = _at(estimate, nodes)
        if meets(candidate, goals):
            return candidate, _words_of(candidate)
    if not most:
        return None, "none: the global batch has fewer sequences than one node has GPUs"
    grid = [2**power for power in range(most.bit_length())]
    best = min((_at(estimate, nodes) for nodes in (*grid, most)), key=lambda each: each.expected_s)
    why = "" if most == MOST_NODES else (
        f" (the global batch of {estimate.job.global_sequences} sequences has none for more)"
    )  # fmt: skip
    return None, (
        f"none, up to {most:,} nodes{why}: the quickest tried, {best.cluster.nodes:,} nodes, takes "
        f"{render_duration(best.expected_s)}"
        + (f" and {render_usd(best.usd)}" if best.usd is not None else "")
        + ("" if best.fits else ", and memory does not suffice on any")
    )


def _most_nodes(estimate: Estimate) -> int:
    """Return how many nodes the global batch has sequences for, up to MOST_NODES."""
    sequences = estimate.job.global_sequences
    if sequences is None:
        return MOST_NODES
    return min(MOST_NODES, sequences // estimate.cluster.gpus_per_node)


def _least_nodes(estimate: Estimate, goals: Goals) -> int:
    """Return how many nodes it takes at least: without exchange and failures.

    More than MOST_NODES where no number of them can be cheap enough.
    """
    cluster, speed = estimate.cluster, estimate.speed
    node_tokens_per_s = speed.tokens_per_s / speed.efficiency / cluster.nodes
    rates = [goals.tokens_per_s or 0.0]
    if goals.deadline_s is not None:
        rates.append(estimate.job.tokens / goals.deadline_s)
    if goals.budget_usd is not None and (usd := _least_usd_per_gpu_hour(estimate)) is not None:
        hours = estimate.job.tokens / node_tokens_per_s / 3600 * cluster.gpus_per_node
        if usd * hours > goals.budget_usd:
            return MOST_NODES + 1
    return max(1, math.ceil(max(rates) / node_tokens_per_s))


def _least_usd_per_gpu_hour(estimate: Estimate) -> float | None:
    if estimate.assumptions.usd_per_gpu_hour is not None:
        return estimate.assumptions.usd_per_gpu_hour
    prices = [offer.on_demand_usd_per_hour / offer.gpus for offer in estimate.offers]
    return min(prices, default=None)


def _at(estimate: Estimate, nodes: int) -> Estimate:
    job, cluster = estimate.job, estimate.cluster
    cluster_then = replace(cluster, nodes=nodes)
    sequences = job.sequences_per_rank(cluster_then.gpus)
    micro_batch = job.load(cluster.gpus).micro_batch
    # Where memory does not suffice, a plan that would do needs smaller micro-batches.
    return plan_estimate(
        replace(job, accum=-(-sequences // micro_batch)), cluster_then,
        replace(estimate.assumptions, chooses_accum=not estimate.fits),
    )  # fmt: skip


def _words_of(estimate: Estimate) -> str:
    cluster = estimate.cluster
    money = "" if estimate.usd is None else f", {render_usd(estimate.usd)} on demand"
    return (
        f"{cluster.nodes} nodes x {cluster.gpus_per_node} = {cluster.gpus} {cluster.gpu.name}: "
        f"{render_duration(estimate.expected_s)}{money}, scaling efficiency "
        f"{estimate.speed.efficiency:.0%}, global batch "
        f"{render_count(estimate.speed.tokens_per_step)} tokens, accumulation {estimate.job.accum}"
    )
