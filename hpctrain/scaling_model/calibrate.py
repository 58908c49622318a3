"""From measured runs to a model of a step; and from there to predictions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from hpctrain.bench.samples import RankSteps, Sample
from hpctrain.errors import BenchError
from hpctrain.scaling_model.jitter import jitter_of
from hpctrain.scaling_model.links import Link, LinkFit
from hpctrain.scaling_model.predict import Prediction, predict_curve
from hpctrain.scaling_model.step import (
    GRADIENT_BYTES,
    HOROVOD_CYCLE_S,
    MIB,
    WIRE_FACTORS,
    StepModel,
    plan_bucket_models,
)
from hpctrain.scaling_model.topology import Topology

# As hpctrain.train.comm_horovod.choose_cycle_ms has it for ranks that compute on a CPU.
CORE_FLOPS, CYCLES_A_STEP, LONGEST_CYCLE_S = 5e10, 40, 10e-3


def calibrate(
    sample_1: Sample,
    sample_2: Sample | None = None,
    *,
    bucket_mb: float = 25.0,
    compression: str = "none",
    accum: int = 1,
    param_bytes: Sequence[float] | None = None,
    backward_shares: Sequence[float] | None = None,
    backend: str = "horovod",
    cycle_s: float | None = None,
) -> StepModel:
    """Return a model of a step from a run of one rank and, where there is one, of two.

    The run of one rank gives the parts. The run of two gives what ranks differ by, and by how
    much an exchange in the background slows the computing.

    Args:
        bucket_mb, compression, backend: as the configuration's `comm` has them.
        accum: micro-batches a step in these runs.
        param_bytes, backward_shares: see :func:`plan_bucket_models`; by default the sample's
            parameters, evenly.
        cycle_s: Horovod's cycle; by default the one that the trainer sets.

    Raises:
        BenchError: the sample has no parts, or neither it nor the caller knows the parameters.
    """
    if not sample_1.ranks:
        raise BenchError(
            "calibrate: the run of one rank has no parts of its steps, got none; expected data, "
            "forward, backward and optimizer. Calibrate from the trainer's own runs."
        )
    if param_bytes is None and not sample_1.params:
        raise BenchError(
            "calibrate: the number of parameters is unknown, got none; expected it in the sample. "
            "Calibrate from the trainer's own runs."
        )
    one = sample_1.ranks[0]
    computing = _computing(one)
    both = [_computing(rank) for rank in sample_2.ranks] if sample_2 else []
    slowdown = 0.0
    if both:
        slowdown = statistics.median(v for rank in both for v in rank) / statistics.median(
            computing
        )
    asks = backend == "horovod"  # DDP and NCCL alone do not negotiate
    if cycle_s is None:
        cycle_s = _cycle_s(sample_1) if asks else 0.0
    measured = f"measured: {len(computing)} steps of one rank"
    return StepModel(
        data_s=statistics.median(one.data_s),
        forward_s=statistics.median(one.forward_s) / accum,
        backward_s=statistics.median(one.backward_s) / accum,
        optimizer_s=statistics.median(one.optimizer_s) + _rest_s(sample_1),
        buckets=plan_bucket_models(
            param_bytes if param_bytes is not None else GRADIENT_BYTES * sample_1.params,
            bucket_mb * MIB,
            backward_shares=backward_shares,
            wire_factor=WIRE_FACTORS[compression],
        ),
        jitter_cv=jitter_of(both) if both else _spread(computing),
        accum=accum,
        slowdown=max(0.0, slowdown - 1.0) if both else 0.0,
        cycle_s=cycle_s,
        negotiates=asks,
        error=_spread(computing) / len(computing) ** 0.5,
        source=f"{measured}, {len(both[0])} of two" if both else measured,
    )


def predict_from_samples(
    sample_1: Sample,
    sample_2: Sample | None,
    links: Sequence[LinkFit | Link | None],
    placements: Sequence[tuple[int, int]],
    *,
    algorithm: str | None = None,
    **how: object,
) -> tuple[Prediction, ...]:
    """Return a prediction for each placement, calibrated from measurements.

    Args:
        links: between nodes, and within one; each fitted, given, or None where no placement
            uses it.
        placements: (nodes, ranks on each).
        algorithm: by default what Open MPI takes on CPUs, and NCCL on GPUs.
        how: as :func:`calibrate` takes it.

    Raises:
        BenchError: see :func:`calibrate`; or a link that is needed is not given.
    """
    step = calibrate(sample_1, sample_2, **how)  # type: ignore[arg-type]
    inter, intra = (link.link if isinstance(link, LinkFit) else link for link in links)
    on_gpu = sample_1.ranks[0].device.startswith("cuda")
    algorithm = algorithm or ("nccl" if on_gpu else "openmpi")
    topologies = []
    for nodes, ranks in placements:
        for link, needed, name in ((inter, nodes > 1, "between"), (intra, ranks > 1, "within")):
            if link is None and needed:
                raise BenchError(
                    f"predict: no link {name} nodes is known, got placement {nodes} x {ranks}; "
                    "expected a fitted or a given one. Run hpctrain bench allreduce."
                )
        some = inter or intra or Link(0.0, 1.0)
        topologies.append(Topology(nodes, ranks, inter or some, intra or some, algorithm))
    return predict_curve(step, topologies)


def _computing(rank: RankSteps) -> tuple[float, ...]:
    return tuple(f + b for f, b in zip(rank.forward_s, rank.backward_s, strict=True))


def _rest_s(sample: Sample) -> float:
    """Return what a step takes beside its parts: reports, the loop itself."""
    one = sample.ranks[0]
    parts = zip(
        one.data_s, one.forward_s, one.backward_s, one.exposed_comm_s, one.optimizer_s, strict=True
    )
    rests = [step - sum(p) for step, p in zip(sample.step_time_s, parts, strict=False)]
    return max(0.0, statistics.median(rests)) if rests else 0.0


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation relative to the mean; from quartiles, so that a single slow
    step does not count."""
    if len(values) < 4:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 1.349 / middle if middle else 0.0


def _cycle_s(sample: Sample) -> float:
    """Return the cycle that the trainer gives Horovod, with one thread a rank."""
    flops, tokens = sample.flops_per_token, sample.tokens_per_step
    if sample.ranks[0].device.startswith("cuda") or not flops or not tokens:
        return HOROVOD_CYCLE_S
    return cpu_cycle_s(tokens / sample.np * flops)


def cpu_cycle_s(step_flops: float) -> float:
    """Return the cycle for a rank that computes so much a step on one core, see CORE_FLOPS.

    >>> cpu_cycle_s(33e9), cpu_cycle_s(1e9)
    (0.01, 0.001)
    """
    cycle_s = step_flops / CORE_FLOPS / CYCLES_A_STEP
    return min(max(cycle_s, HOROVOD_CYCLE_S), LONGEST_CYCLE_S)
