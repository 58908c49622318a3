"""What would lift a size's efficiency, and how fast its link would have to be: by the model.

Predictions here are ratios: the measured efficiency times what the model says a change does to
it. So an error of the model that is the same with and without the change cancels out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpctrain.bench.report.models import SizeModel
from hpctrain.bench.report.wire import ExchangeSettings
from hpctrain.scaling_model.predict import StepParts, predict_parts, predict_step
from hpctrain.scaling_model.step import BucketModel, StepModel, plan_bucket_models
from hpctrain.scaling_model.topology import Topology

ACCUMULATED = 4
FEW_BUCKETS, MORE_BUCKETS = 4, 8
HIDDEN = 0.02
"""An exchange that is exposed for no more than this part of a step counts as hidden."""
WORTH_SAYING = 0.03
FASTEST = 1e6
"""How many times a link's speed is looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WhatIf:
    """A change of settings, and the efficiency it would give (0 to 1)."""

    words: str
    efficiency: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkNeed:
    """What the link gives, and what it would have to give to hide the exchange.

    Args:
        gives_gb_per_s, needs_gb_per_s: bus bandwidth of all-reduces as large as the buckets,
            latency included (GB/s); beyond what is needed, more hardly shortens the step.
        left: the part of the step that is exposed all the same, for latency's sake.
        exposed: the part that the model has exposed on this link.
    """

    gives_gb_per_s: float
    needs_gb_per_s: float
    left: float
    exposed: float


def find_link_need(model: SizeModel) -> LinkNeed:
    """Return the bandwidth from which on the exchange hides behind backward."""
    gives = model.link.bandwidth_bytes_per_s
    left = _exposed(_predict(model, gives * FASTEST))
    low, high = gives / FASTEST, gives * FASTEST
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        is_enough = _exposed(_predict(model, middle)) <= left + HIDDEN
        low, high = (low, middle) if is_enough else (middle, high)
    now = _predict(model, gives)
    return LinkNeed(
        gives_gb_per_s=_busbw_gb_per_s(model, now),
        needs_gb_per_s=_busbw_gb_per_s(model, _predict(model, high)),
        left=left, exposed=_exposed(now),
    )  # fmt: skip


def find_what_ifs(
    efficiency: float,
    model: SizeModel,
    settings: ExchangeSettings,
    *,
    over_network: bool,
    at_most: float = 1.0,
) -> tuple[WhatIf, ...]:
    """Return the changes that would lift this efficiency by a part worth saying, best first.

    Args:
        efficiency: as measured, 0 to 1.
        over_network: whether gradients leave the node; within one, converting them to a smaller
            format costs more than it saves (docs/tuning.md).
        at_most: no change gives more, whatever the model says (0 to 1).
    """
    changes: dict[str, StepModel] = {}
    step = model.step
    if settings.compression == "none" and over_network:
        halved = tuple(replace(bucket, bytes_=bucket.bytes_ / 2) for bucket in step.buckets)
        changes["fp16 compression (comm.compression)"] = replace(step, buckets=halved)
    many = ACCUMULATED * settings.grad_accum_steps
    changes[f"accumulating {many} steps (train.grad_accum_steps, a batch {ACCUMULATED} times as "
            "large)"] = replace(step, accum=step.accum * ACCUMULATED)  # fmt: skip
    if len(step.buckets) < FEW_BUCKETS and step.exchanged_bytes:
        size_mb = max(0.1, step.exchanged_bytes / MORE_BUCKETS / 2**20)
        changes[f"smaller buckets (comm.bucket_mb={size_mb:.2g})"] = replace(
            step, buckets=_cut(step, size_mb)
        )
    now = predict_step(step, model.topology).efficiency
    found = [
        WhatIf(
            words=words,
            efficiency=min(
                at_most, efficiency * predict_step(changed, model.topology).efficiency / now
            ),
        )
        for words, changed in changes.items()
    ]
    worth = [what for what in found if what.efficiency > efficiency + WORTH_SAYING]
    return tuple(sorted(worth, key=lambda what: -what.efficiency))


def _cut(step: StepModel, size_mb: float) -> tuple[BucketModel, ...]:
    return plan_bucket_models(step.exchanged_bytes, size_mb * 2**20)


def _predict(model: SizeModel, bandwidth_bytes_per_s: float) -> StepParts:
    """Return the step on a link of this bandwidth."""
    link = replace(model.link, bandwidth_bytes_per_s=bandwidth_bytes_per_s)
    old = model.topology
    topology = Topology(old.nodes, old.ranks_per_node, link, link, old.algorithm)
    return predict_parts(model.step, topology)


def _exposed(parts: StepParts) -> float:
    """Return the exposed part of a step, 0 to 1."""
    return parts.exposed_comm_s / parts.step_s


def _busbw_gb_per_s(model: SizeModel, parts: StepParts) -> float:
    """Return the bus bandwidth of all exchanges of a step, as nccl-tests defines it."""
    n = model.topology.n
    return 2 * (n - 1) / n * model.step.exchanged_bytes / parts.comm_s / 1e9
