"""What does a sharded optimizer exchange that nothing hides?

With `optim.sharded` gradients are reduce-scattered beside backward, and after the optimizer's step
every rank gathers the others' parts of the weights: in fp32 whatever `comm.compression` says, and
before the next forward pass (hpctrain/train/exchange.py, BucketExchange.update).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hpctrain.scaling_model.step import BucketModel
from hpctrain.scaling_model.topology import Topology, allreduce_s


def reduce_scattered(buckets: Sequence[BucketModel]) -> tuple[BucketModel, ...]:
    """Return buckets of which each rank gets one part alone: (n-1)/n of the bytes, not twice that.

    They keep the number of an all-reduce's messages, which is more than there are.
    """
    return tuple(replace(bucket, bytes_=bucket.bytes_ / 2) for bucket in buckets)


def gather_s(buckets: Sequence[BucketModel], topology: Topology) -> float:
    """Return how long gathering all weights takes: the second half of a ring all-reduce.

    Args:
        buckets: in fp32.

    >>> from hpctrain.scaling_model.links import Link
    >>> wire = Link(1e-5, 1e9)
    >>> round(gather_s([BucketModel(4e6, 1.0)], Topology(2, 1, wire, wire)), 6)
    0.00201
    """
    ring = replace(topology, algorithm="ring")
    return sum(allreduce_s(bucket.bytes_, ring).total_s for bucket in buckets) / 2
