"""How long does an all-reduce take over nodes of several ranks each?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpctrain.errors import PlanError, raise_all
from hpctrain.scaling_model.collectives import FLAT_ALGORITHMS, Round, rounds
from hpctrain.scaling_model.links import Link

# Pieces in which the stages of a hierarchical all-reduce follow one another: HAN's segments
# (coll_han_allreduce_segsize of Open MPI 5).
SEGMENT_BYTES = 65536
ALGORITHMS = ("nccl", "hierarchical", *FLAT_ALGORITHMS)


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes with equally many ranks.

    Args:
        inter: a node's way to the others, shared by its ranks.
        intra: between two ranks of a node.
        algorithm: ``nccl`` is the quicker of NCCL's ring and its tree; ``openmpi`` what Open MPI
            5 takes; ``hierarchical`` reduces within nodes, over nodes, and spreads within nodes.
    """

    nodes: int
    ranks_per_node: int
    inter: Link
    intra: Link
    algorithm: str = "nccl"

    def __post_init__(self) -> None:
        errors = [
            f"topology: {name} is too small, got {value}; expected 1 or more. Give a larger one."
            for name, value in (("nodes", self.nodes), ("ranks_per_node", self.ranks_per_node))
            if value < 1
        ]
        if self.algorithm not in ALGORITHMS:
            errors.append(
                f"topology: unknown algorithm, got '{self.algorithm}'; expected one of "
                f"{', '.join(ALGORITHMS)}. Take one of them."
            )
        raise_all(PlanError, errors)

    @property
    def n(self) -> int:
        """All ranks."""
        return self.nodes * self.ranks_per_node

    def scaled(self, factor: float) -> Topology:
        """Return the same with links that are `factor` times as fast."""
        return replace(self, inter=self.inter.scaled(factor), intra=self.intra.scaled(factor))


@dataclass(frozen=True, slots=True)
class AllreduceTime:
    """What an all-reduce takes, and of what.

    Args:
        total_s: from start to end.
        latency_s, bandwidth_s: what messages wait before they flow, and how long they flow.
        intra_s, inter_s: within nodes and between them, each as if alone.
        at_start_s: the part that is saved right behind another all-reduce.
    """

    total_s: float
    latency_s: float = 0.0
    bandwidth_s: float = 0.0
    intra_s: float = 0.0
    inter_s: float = 0.0
    at_start_s: float = 0.0


def allreduce_s(bytes_: float, topology: Topology) -> AllreduceTime:
    """Return how long an all-reduce of `bytes_` takes.

    >>> wire = Link(1e-5, 1e9)
    >>> round(allreduce_s(4e6, Topology(2, 1, wire, wire)).total_s, 6)
    0.00402
    >>> allreduce_s(4e6, Topology(1, 1, wire, wire)).total_s
    0.0
    """
    if topology.n == 1:
        return AllreduceTime(0.0)
    algorithm = topology.algorithm
    if algorithm == "nccl":
        ring, tree = (_nccl(bytes_, topology, name) for name in ("ring", "tree"))
        return min(ring, tree, key=lambda time: time.total_s)
    if topology.nodes == 1 or topology.ranks_per_node == 1:
        link = topology.intra if topology.nodes == 1 else topology.inter
        flat = "ring" if algorithm == "hierarchical" else algorithm
        return _flat(rounds(bytes_, topology.n, flat), link, within=topology.nodes == 1)
    if algorithm in ("ring", "tree"):
        return _nccl(bytes_, topology, algorithm)
    return _hierarchical(bytes_, topology, "ring" if algorithm == "hierarchical" else algorithm)


def _flat(steps: tuple[Round, ...], link: Link, *, within: bool) -> AllreduceTime:
    latency_s = sum(step.count * link.start_s(step.bytes_) for step in steps)
    bandwidth_s = sum(step.count * step.bytes_ for step in steps) / link.bandwidth_bytes_per_s
    total_s = latency_s + bandwidth_s
    parts = {"intra_s" if within else "inter_s": total_s}
    parts["at_start_s"] = sum(
        step.count * link.message_s(step.bytes_) for step in steps if step.at_start
    )
    return AllreduceTime(total_s, latency_s, bandwidth_s, **parts)


def _nccl(bytes_: float, topology: Topology, algorithm: str) -> AllreduceTime:
    """NCCL's one ring, or tree, through all ranks: in small pieces, so the slower link counts.

    Latencies as NCCL adds them up for its choice (`src/graph/tuning.cc`): a ring's messages cross
    between nodes 2(k-1) times and within nodes for the rest; a tree goes along the ranks of a
    node and over log2(k) nodes, up and down.

    Bytes that leave a node: with three nodes or more 2·S, as NCCL's pair of trees has every node
    inside one tree and a leaf of the other. Of two nodes one is the root of each tree, and each
    half of the data crosses once a way: S (NVIDIA/nccl issue 812, NVIDIA/nccl-tests issue 196).
    """
    k, g, n = topology.nodes, topology.ranks_per_node, topology.n
    inter, intra = topology.inter, topology.intra
    if algorithm == "ring":
        hops_inter, hops_intra, share = 2 * (k - 1), 2 * (n - k), 2 * (n - 1) / n
        share_inter = share
    else:
        hops_inter, hops_intra, share = 2 * (k - 1).bit_length(), 2 * (g - 1), 2.0
        share_inter = 1.0 if k == 2 else 2.0
    inter_latency_s, intra_latency_s = hops_inter * inter.latency_s, hops_intra * intra.latency_s
    inter_flow_s = share_inter * bytes_ / inter.bandwidth_bytes_per_s if k > 1 else 0.0
    intra_flow_s = share * bytes_ / intra.bandwidth_bytes_per_s if g > 1 else 0.0
    latency_s = inter_latency_s + intra_latency_s
    bandwidth_s = max(inter_flow_s, intra_flow_s)
    return AllreduceTime(
        latency_s + bandwidth_s, latency_s, bandwidth_s,
        intra_s=intra_latency_s + intra_flow_s, inter_s=inter_latency_s + inter_flow_s,
    )  # fmt: skip


def _hierarchical(bytes_: float, topology: Topology, algorithm: str) -> AllreduceTime:
    """Reduce within the nodes, all-reduce over them, spread within: a pipeline of segments.

    2(g-1)/g·S/B within, 2(k-1)/k·S/B between nodes, whose ranks share one link. Segments overlap:
    the slower stage counts in full, the other one for its first segment. So the time lies between
    the larger stage and the sum of both.
    """
    within = _flat(rounds(bytes_, topology.ranks_per_node, "ring"), topology.intra, within=True)
    between = _flat(rounds(bytes_, topology.nodes, algorithm), topology.inter, within=False)
    segments = max(1.0, bytes_ / SEGMENT_BYTES)
    slow, fast = sorted((within, between), key=lambda stage: -stage.total_s)
    latency_s = slow.latency_s + fast.latency_s / segments
    bandwidth_s = slow.bandwidth_s + fast.bandwidth_s / segments
    return AllreduceTime(
        latency_s + bandwidth_s, latency_s, bandwidth_s,
        intra_s=within.total_s, inter_s=between.total_s,
    )  # fmt: skip
