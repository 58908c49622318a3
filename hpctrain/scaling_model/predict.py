"""How long does a step take on a topology, with which certainty, and what makes it longer?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpctrain.scaling_model.jitter import expected_maximum
from hpctrain.scaling_model.overlap import simulate_overlap
from hpctrain.scaling_model.step import StepModel
from hpctrain.scaling_model.topology import Topology, allreduce_s

NEGOTIATION_BYTES = 8
# What the model itself may be off by where links and steps are measured, as a part of the exchange.
# Chosen after seeing the cases of benchmarks/predict.py lab, of which it holds most
# (docs/prediction.md has how many): so those cases do not confirm it.
MODEL_ERROR = 0.15
# Up to so many nodes the model was held against measurements (benchmarks/predict.py lab). Beyond,
# a step may be longer by this part with each doubling: what the model lacks (other traffic,
# stragglers) makes steps longer. Chosen after a published curve, whose step on 64 nodes is 12 %
# longer than predicted (benchmarks/predict.py curve): so that curve does not confirm it.
VALIDATED_NODES, EXTRAPOLATION_ERROR = 4, 0.03
GROWTH_THAT_COUNTS = 0.002  # of the step, a doubling of the nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A predicted step.

    Args:
        low_s, high_s: the error band of `step_s`; `band` says in words what it is made of.
        compute_s: data, forward, backward and optimizer of a rank that is not disturbed.
        exposed_comm_s: what of the exchange does not hide behind backward.
        waiting_s: for the slowest rank.
        comm_s: all exchanges, hidden or not; of it `latency_s` and `bandwidth_s`.
        efficiency: step of a rank alone / step here, with as much work on every rank (weak
            scaling), 0 to 1; `efficiency_low` and `efficiency_high` at `high_s` and `low_s`.
        growing_term: what grows most when nodes are doubled: latency, bandwidth, waiting or
            nothing, with a few words.
        validated_nodes: up to so many nodes the model was held against measurements.
    """

    nodes: int
    ranks: int
    step_s: float
    low_s: float
    high_s: float
    compute_s: float
    exposed_comm_s: float
    waiting_s: float
    comm_s: float
    latency_s: float
    bandwidth_s: float
    efficiency: float
    efficiency_low: float
    efficiency_high: float
    growing_term: str
    band: str
    validated_nodes: int = VALIDATED_NODES


@dataclass(frozen=True, slots=True, kw_only=True)
class StepParts:
    """A step's time as the model has it, without band and words."""

    compute_s: float
    exposed_comm_s: float
    waiting_s: float
    comm_s: float
    latency_s: float
    bandwidth_s: float

    @property
    def step_s(self) -> float:
        return self.compute_s + self.exposed_comm_s + self.waiting_s


def predict_parts(step: StepModel, topology: Topology) -> StepParts:
    """Return what a step takes, part by part.

    >>> from hpctrain.scaling_model.links import Link
    >>> from hpctrain.scaling_model.step import BucketModel
    >>> step = StepModel(0.0, 1.0, 2.0, 0.0, (BucketModel(1e6, 0.5), BucketModel(1e6, 1.0)))
    >>> wire = Link(0.0, 1e6)
    >>> predict_parts(step, Topology(2, 1, wire, wire)).exposed_comm_s  # the last bucket's 1 s
    1.0
    """
    n = topology.n
    if n == 1:
        return StepParts(
            compute_s=step.alone_s, exposed_comm_s=0.0, waiting_s=0.0, comm_s=0.0,
            latency_s=0.0, bandwidth_s=0.0,
        )  # fmt: skip
    slower = 1.0 + step.slowdown
    backward_s = step.backward_s * slower
    times = [allreduce_s(bucket.bytes_, topology) for bucket in step.buckets]
    ready_s = [bucket.ready_fraction * backward_s for bucket in step.buckets]
    negotiation_s, cycle_s = 0.0, step.cycle_s
    if step.negotiates:
        asking = replace(topology, algorithm="openmpi")
        negotiation_s = allreduce_s(NEGOTIATION_BYTES, asking).total_s
    if topology.algorithm == "nccl":
        # The GPU works on one bucket while Horovod's thread asks for the next: only later, not
        # longer. On CPUs that thread does both.
        ready_s = [ready + negotiation_s + max(negotiation_s, cycle_s) / 2 for ready in ready_s]
        negotiation_s = cycle_s = 0.0
    overlap = simulate_overlap(
        ready_s, [time.total_s for time in times],
        backward_s=backward_s, negotiation_s=negotiation_s, cycle_s=cycle_s,
        at_start_s=[time.at_start_s for time in times],
    )  # fmt: skip
    return StepParts(
        compute_s=step.data_s + step.computing_s * slower + step.optimizer_s,
        exposed_comm_s=overlap.exposed_s,
        waiting_s=step.computing_s * slower * step.jitter_cv * expected_maximum(n),
        comm_s=sum(time.total_s for time in times),
        latency_s=sum(time.latency_s for time in times),
        bandwidth_s=sum(time.bandwidth_s for time in times),
    )


def predict_step(step: StepModel, topology: Topology) -> Prediction:
    """Return what a step takes on a topology, with its error band."""
    parts = predict_parts(step, topology)
    edges = _edges(step, topology)
    late_s = _extrapolation_error(topology.nodes) * parts.step_s
    efficiencies = [_ratio(alone_s, step_s) for alone_s, step_s in edges]
    slowest = [_ratio(alone_s, step_s + late_s) for alone_s, step_s in edges]
    efficiency = _ratio(step.alone_s, parts.step_s)
    return Prediction(
        nodes=topology.nodes, ranks=topology.n, step_s=parts.step_s,
        low_s=min(step_s for _, step_s in edges),
        high_s=max(step_s for _, step_s in edges) + late_s,
        compute_s=parts.compute_s, exposed_comm_s=parts.exposed_comm_s,
        waiting_s=parts.waiting_s, comm_s=parts.comm_s, latency_s=parts.latency_s,
        bandwidth_s=parts.bandwidth_s, efficiency=efficiency,
        efficiency_low=min(efficiency, *slowest),
        efficiency_high=max(efficiency, min(1.0, max(efficiencies))),
        growing_term=find_growing_term(step, topology), band=describe_band(step, topology),
    )  # fmt: skip


def predict_curve(step: StepModel, topologies: Sequence[Topology]) -> tuple[Prediction, ...]:
    """Return a prediction for each topology."""
    return tuple(predict_step(step, topology) for topology in topologies)


def find_growing_term(step: StepModel, topology: Topology) -> str:
    """Return what makes the step longer when the nodes (or the ranks of the one node) double."""
    doubled = replace(topology, nodes=2 * topology.nodes)
    if topology.nodes == 1 and topology.ranks_per_node > 1:
        doubled = replace(topology, nodes=2)
    now, then = (predict_parts(step, each) for each in (topology, doubled))
    if then.step_s - now.step_s < GROWTH_THAT_COUNTS * now.step_s:
        return "nothing"
    exposed_s = then.exposed_comm_s - now.exposed_comm_s
    if then.waiting_s - now.waiting_s >= exposed_s:
        return "waiting: the slowest of more ranks"
    if then.latency_s - now.latency_s >= then.bandwidth_s - now.bandwidth_s:
        return "latency: more messages one after the other"
    return "bandwidth: gradients that do not hide behind backward"


def describe_band(step: StepModel, topology: Topology) -> str:
    """Say what the error band is made of."""
    words = []
    for name, link, used in (
        ("between nodes", topology.inter, topology.nodes > 1),
        ("within a node", topology.intra, topology.ranks_per_node > 1),
    ):
        if used:
            words.append(f"link {name} ±{link.error:.0%} ({link.source or 'no source given'})")
    words.append(f"compute ±{step.error:.0%} ({step.source or 'no source given'})")
    words.append(f"the model itself ±{MODEL_ERROR:.0%} of what is communicated")
    if topology.nodes > VALIDATED_NODES:
        words.append(
            f"up to {_extrapolation_error(topology.nodes):.0%} of the step longer, as nothing "
            f"beyond {VALIDATED_NODES} nodes was measured ({EXTRAPOLATION_ERROR:.0%} a doubling)"
        )
    return "; ".join(words)


def _edges(step: StepModel, topology: Topology) -> list[tuple[float, float]]:
    """Return (step alone, step here) in s at all corners of what is uncertain.

    Both matter to the efficiency: the quicker the computing, the more of an exchange is exposed.
    """
    found = []
    for sign in (-1, 1):  # links that are quicker, and slower
        edge = replace(
            topology,
            inter=topology.inter.scaled(_factor(topology.inter.error, sign)),
            intra=topology.intra.scaled(_factor(topology.intra.error, sign)),
        )
        for longer in (1 / (1 + step.error), 1.0, 1 + step.error):
            other = replace(
                step, forward_s=step.forward_s * longer, backward_s=step.backward_s * longer
            )
            parts = predict_parts(other, edge)
            jitter_s = parts.waiting_s * 0.5 * sign  # the slowest of n varies; see the docs
            found.append((other.alone_s, parts.step_s + jitter_s))
    return found


def _extrapolation_error(nodes: int) -> float:
    """Return by what part a step may be longer for want of measurements on so many nodes.

    >>> _extrapolation_error(4), round(_extrapolation_error(64), 3)
    (0.0, 0.12)
    """
    return EXTRAPOLATION_ERROR * max(0.0, math.log2(nodes / VALIDATED_NODES))


def _factor(error: float, sign: int) -> float:
    whole = (1.0 + error) * (1.0 + MODEL_ERROR)
    return whole if sign < 0 else 1.0 / whole


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else 1.0
