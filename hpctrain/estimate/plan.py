"""The estimate of one job on one cluster: everything that follows from what was asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hpctrain.estimate.goodput import Goodput, plan_checkpoints
from hpctrain.estimate.memory import MemoryEstimate, estimate_memory, largest_micro_batch
from hpctrain.estimate.mfu import MfuFigure
from hpctrain.estimate.model import ModelCost, cost_model
from hpctrain.estimate.money import Offer, find_offers
from hpctrain.estimate.speed import Cluster, Job, Speed, predict_speed

DEFAULT_STORAGE_BYTES_PER_S = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumptions:
    """What an estimate takes from tables and from the user, besides job and cluster.

    Args:
        prices: as :func:`hpctrain.clusters.cloud.prices.read_prices` gives it.
        usd_per_gpu_hour: the user's own price, in place of the table's.
        storage_bytes_per_s: at which all ranks together write a checkpoint.
        chooses_accum: whether the accumulation may be raised until memory suffices.
        chooses_shape: whether nobody has said how many GPUs a node has.
    """

    mfu: MfuFigure
    prices: Mapping[str, Any]
    usd_per_gpu_hour: float | None = None
    storage_bytes_per_s: float = DEFAULT_STORAGE_BYTES_PER_S
    chooses_accum: bool = False
    chooses_shape: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Args:
    job: with the accumulation that was chosen, where it was to be.
    training_s: without failures; `expected_s` with them and with checkpoints.
    ceiling_s: at 100 % MFU, without exchange, checkpoints and failures.
    offers: the cheapest first; those of other shapes last.
    """

    job: Job
    cluster: Cluster
    assumptions: Assumptions
    cost: ModelCost
    memory: MemoryEstimate
    speed: Speed
    goodput: Goodput
    offers: tuple[Offer, ...]
    steps: int
    training_s: float
    expected_s: float
    ceiling_s: float

    @property
    def fits(self) -> bool:
        """Whether the GPU's memory suffices, as far as is known."""
        return self.memory.needed_bytes <= self.cluster.gpu.memory_bytes

    @property
    def tight(self) -> bool:
        """Whether it suffices only if the estimate is not too small by its error."""
        return self.fits and self.memory.at_most_bytes > self.cluster.gpu.memory_bytes

    @property
    def gpu_hours(self) -> float:
        return self.cluster.gpus * self.expected_s / 3600

    @property
    def interval_steps(self) -> int:
        """Steps from checkpoint to checkpoint, never fewer than a write takes."""
        least = math.ceil(self.goodput.write_s / self.speed.step_s)
        return max(1, least, round(self.goodput.interval_s / self.speed.step_s))

    @property
    def usd(self) -> float | None:
        """The least money on demand, or by the user's own price; None where no price is known."""
        if self.assumptions.usd_per_gpu_hour is not None:
            own = self.assumptions.usd_per_gpu_hour
            return own * self.gpu_hours if own else 0.0  # also of a run that never ends
        if self.offer is None:
            return None
        return self.offer.on_demand_usd(self.expected_s / 3600)

    @property
    def offer(self) -> Offer | None:
        """The cheapest offer of nodes as they are estimated; None where none is priced."""
        return next((each for each in self.offers if not each.other_shape), None)


def plan_estimate(job: Job, cluster: Cluster, assumptions: Assumptions) -> Estimate:
    """Return the estimate.

    Raises:
        ConfigError: there are fewer sequences than GPUs.
    """
    # A rank leaves out the parts of a step that are empty (hpctrain/train/data.py).
    job = replace(job, accum=min(job.accum, job.sequences_per_rank(cluster.gpus)))
    if assumptions.chooses_accum:
        job = fit_memory(job, cluster)
    cost = cost_model(job.size)
    speed = predict_speed(job, cluster, assumptions.mfu)
    goodput = plan_checkpoints(
        cost.checkpoint_bytes, cluster.gpus,
        to_host_bytes_per_s=cluster.gpu.to_host_bytes_per_s,
        storage_bytes_per_s=assumptions.storage_bytes_per_s,
    )  # fmt: skip
    steps = -(-job.tokens // speed.tokens_per_step)
    training_s = steps * speed.step_s
    return Estimate(
        job=job, cluster=cluster, assumptions=assumptions, cost=cost,
        memory=estimate_memory(job.size, job.load(cluster.gpus)), speed=speed, goodput=goodput,
        offers=find_offers(
            assumptions.prices, cluster.gpu, cluster.nodes, cluster.gpus_per_node, cluster.instance
        ),
        steps=steps, training_s=training_s,
        expected_s=training_s / goodput.share if goodput.share else float("inf"),
        ceiling_s=job.tokens / speed.ceiling_tokens_per_s,
    )  # fmt: skip


def fit_memory(job: Job, cluster: Cluster) -> Job:
    """Return the job with the least accumulation whose micro-batch fits the GPU with a margin.

    Where none does, that which fits without; where not even one sequence fits, the job as it was.
    """
    load = job.load(cluster.gpus)
    for with_margin in (True, False):
        micro_batch = largest_micro_batch(
            job.size, load, cluster.gpu.memory_bytes, with_margin=with_margin
        )
        if micro_batch:
            return replace(job, accum=-(-load.sequences // micro_batch))
    return job
