"""Steps of sharded training (FSDP), calibrated on the smaller of a curve's sizes.

Weights are spread over all ranks: a layer's are gathered before they are used, and its gradients
are scattered behind backward. No all-reduce is left. hpctrain itself trains otherwise; published
curves on hundreds of GPUs are of this kind, and the model is held against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpctrain.errors import PlanError
from hpctrain.scaling_model.jitter import expected_maximum
from hpctrain.scaling_model.least_squares import solve_non_negative
from hpctrain.scaling_model.topology import Topology, allreduce_s

# All-gathers before a layer's forward and again before its backward, reduce-scatters behind it
# (torch's FSDP: FULL_SHARD drops gathered weights after forward, SHARD_GRAD_OP keeps them).
COLLECTIVES = {"FULL_SHARD": 3, "SHARD_GRAD_OP": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedJob:
    """What is trained, and on what.

    Args:
        tokens: of a step on one rank.
        layer_bytes: of one layer's weights as they travel.
        sharding: one of COLLECTIVES.
    """

    tokens: int
    layers: int
    layer_bytes: float
    sharding: str
    topology: Topology

    def __post_init__(self) -> None:
        if self.sharding not in COLLECTIVES:
            raise PlanError(
                f"sharding: unknown, got '{self.sharding}'; expected one of "
                f"{', '.join(COLLECTIVES)}. Take one of them."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedFit:
    """What a curve's smaller sizes give.

    Args:
        jitter_s_per_token: standard deviation of what ranks differ by.
        exposed_part: of the collectives' latency, what does not hide behind computing, 0 to 1.
    """

    s_per_token: float
    jitter_s_per_token: float
    exposed_part: float


def fit_sharded(jobs: Sequence[ShardedJob], step_s: Sequence[float]) -> ShardedFit:
    """Find what these steps took, by least squares of the relative errors, none below 0.

    >>> from hpctrain.scaling_model.links import Link
    >>> wire = Link(1e-5, 1e9)
    >>> job = ShardedJob(tokens=1000, layers=1, layer_bytes=1.0, sharding="FULL_SHARD",
    ...                  topology=Topology(1, 1, wire, wire))
    >>> fit_sharded([job], [0.5]).s_per_token
    0.0005
    """
    scaled = [
        tuple(term / seconds for term in _terms(job))
        for job, seconds in zip(jobs, step_s, strict=True)
    ]
    found = solve_non_negative(scaled, [1.0] * len(scaled))
    if found[2] > 1.0:  # more than all of it cannot be waited for
        rest = [1.0 - row[2] for row in scaled]
        found = (*solve_non_negative([row[:2] for row in scaled], rest), 1.0)
    return ShardedFit(
        s_per_token=found[0], jitter_s_per_token=found[1], exposed_part=found[2]
    )  # fmt: skip


def predict_sharded_s(fit: ShardedFit, job: ShardedJob) -> float:
    """Return how long a step takes, s."""
    fixed, differs, latency_s = _terms(job)
    return fixed * fit.s_per_token + differs * fit.jitter_s_per_token + latency_s * fit.exposed_part


def latency_s(job: ShardedJob) -> float:
    """Return the latency of a step's collectives, s.

    A gather or scatter is half of a ring all-reduce; NCCL has no tree for them. Their bandwidth is
    taken to hide: a layer computes for about 10 ms where its 110 MB take about 0.4 ms (1.3 billion
    parameters over 3200 Gbit/s a node). Latency grows with the ring.
    """
    ring = replace(job.topology, algorithm="ring")
    one_s = allreduce_s(job.layer_bytes, ring).latency_s / 2
    return COLLECTIVES[job.sharding] * job.layers * one_s


def _terms(job: ShardedJob) -> tuple[float, float, float]:
    """Return what the three of :class:`ShardedFit` are multiplied by."""
    return float(job.tokens), job.tokens * expected_maximum(job.topology.n), latency_s(job)
