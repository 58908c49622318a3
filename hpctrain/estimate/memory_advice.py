"""Which settings would make a job fit its GPU's memory?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hpctrain.estimate.memory import estimate_memory, largest_micro_batch
from hpctrain.estimate.plan import Estimate


def advise_memory(estimate: Estimate) -> str:
    """Return the changes that make it fit with a margin, else without one; empty where none does.

    Each alone, then all of them together.
    """
    ways = list(_ways(estimate, with_margin=True))
    if not ways and not estimate.fits:
        ways = list(_ways(estimate, with_margin=False))
    return " or ".join(ways)


def _ways(estimate: Estimate, *, with_margin: bool) -> Iterator[str]:
    job, cluster = estimate.job, estimate.cluster
    load = job.load(cluster.gpus)

    def fits(**changes: object) -> bool:
        then = estimate_memory(job.size, replace(load, **changes))
        needs = then.at_most_bytes if with_margin else then.needed_bytes
        return needs <= cluster.gpu.memory_bytes

    smaller = largest_micro_batch(
        job.size, load, cluster.gpu.memory_bytes, with_margin=with_margin
    )  # fmt: skip
    if 0 < smaller < load.micro_batch:
        accum = -(-load.sequences // smaller)
        yield f"--accum {accum} (micro-batches of {-(-load.sequences // accum)})"
    if not load.recomputes and fits(recomputes=True):
        yield "--set train.activation_checkpointing=true"
    if not load.sharded and load.ranks > 1 and fits(sharded=True):
        yield "--set optim.sharded=true"
    everything = {"micro_batch": 1, "recomputes": True, "sharded": load.ranks > 1}
    if not smaller and not fits(recomputes=True) and fits(**everything):
        yield "micro-batches of 1 with train.activation_checkpointing and optim.sharded"
