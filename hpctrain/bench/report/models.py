"""A scaling model for each size: its step from smaller sizes, its exchange from the all-reduces.

The step comes from one rank alone and, where that is not the size in question, from two ranks,
which show how an exchange in the background slows computing. The exchange comes from all-reduces
measured on the very same ranks, apart from any training: so no size is predicted from itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hpctrain.bench.report.measured import TOKENS, Measured
from hpctrain.bench.report.parts import find_missing_steps
from hpctrain.bench.report.wire import ExchangeSettings
from hpctrain.bench.samples import Sample
from hpctrain.errors import HpctrainError
from hpctrain.scaling_model.calibrate import calibrate
from hpctrain.scaling_model.from_bench import merge_samples
from hpctrain.scaling_model.links import Link, fit_allreduce
from hpctrain.scaling_model.step import StepModel
from hpctrain.scaling_model.topology import Topology

if TYPE_CHECKING:
    from hpctrain.bench.allreduce.results import AllreduceResult

BACKENDS = {"ddp": ("torch",), "horovod": ("buckets", "horovod")}
"""Which measured all-reduce stands for the training's, by `comm.backend`: the first that is."""
COMPUTE = ("data", "forward", "backward")
FIT_SIZES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeModel:
    """The model of one size.

    Args:
        step: with the work that a rank of this size has.
        link: what the ranks of its placement get from each other, fitted.
        why: what it was made from, in words.
    """

    step: StepModel
    topology: Topology
    link: Link
    why: str


def build_models(
    measured: Sequence[Measured],
    allreduces: Mapping[str, AllreduceResult],
    settings: ExchangeSettings,
    environment: Mapping[str, Any],
) -> dict[str, SizeModel | str]:
    """Return a model for each case of several ranks, by key; in its place why there is none."""
    return {
        m.case.key: _build(m, measured, allreduces, settings, environment)
        for m in measured
        if m.case.np > 1
    }


def _build(
    target: Measured, measured: Sequence[Measured], allreduces: Mapping[str, AllreduceResult],
    settings: ExchangeSettings, environment: Mapping[str, Any],
) -> SizeModel | str:  # fmt: skip
    if target.unit != TOKENS or target.parts_s is None:
        return "the program reports no parts of its steps"
    if settings.backend == "none" or settings.sharded:
        return "the model knows all-reduces only, not a sharded or missing exchange"
    if crowded := _crowded(target, environment):
        return crowded
    one = _find(measured, target, 1)
    if one is None:
        return "no run of one rank to calibrate from"
    two = _find(measured, target, 2)
    result = allreduces.get(target.case.placement)
    if result is None:
        return f"no all-reduce was measured at {target.case.placement}"
    try:
        link, backend = _fit_link(result, settings, on_gpu=_on_gpu(target))
        sample_2 = two and _pool(two, target)
        step = calibrate(
            _pool(one, target), sample_2, bucket_mb=settings.bucket_mb,
            compression=settings.compression, accum=settings.grad_accum_steps,
            backend=settings.backend,
        )  # fmt: skip
    except HpctrainError as problem:
        return str(problem)
    algorithm = _algorithm(settings, on_gpu=_on_gpu(target))
    spread_out = target.case.nodes > 1
    shape = (target.case.np, 1) if spread_out else (1, target.case.np)
    origin = f"from {one.case.key}{f' and {two.case.key}' if two else ''}"
    return SizeModel(
        # What Horovod agrees on before each exchange is in the all-reduces' times already.
        step=replace(step, negotiates=False),
        topology=Topology(*shape, inter=link, intra=link, algorithm=algorithm),
        link=link,
        why=f"{origin}, and all-reduces ({backend}) of the same ranks",
    )


def _find(measured: Sequence[Measured], target: Measured, np: int) -> Measured | None:
    """Return the run to calibrate from: of this precision, not the target; best of its own mode."""
    fitting = [
        m
        for m in measured
        if m is not target
        and (m.case.np, m.case.precision, m.unit) == (np, target.case.precision, TOKENS)
        and m.parts_s is not None
    ]
    # Another mode's run at the same placement would be the same ranks with another batch; and an
    # exchange over a network slows computing otherwise than one within a machine.
    alike = [
        m
        for m in fitting
        if m.case.placement != target.case.placement
        and (np == 1 or (m.case.nodes > 1) == (target.case.nodes > 1))
    ]
    return min(alike, key=lambda m: m.case.mode != target.case.mode, default=None)


def _pool(measured: Measured, target: Measured) -> Sample:
    """Return all repeats as one sample, each rank with as much work as a rank of the target."""
    whole = [s for s in measured.samples if s.ranks and not find_missing_steps(s)]
    scale = (target.work_per_step / target.case.np) / (measured.work_per_step / measured.case.np)
    pooled = merge_samples([_scale(sample, scale) for sample in whole])
    return replace(pooled, tokens_per_step=pooled.tokens_per_step * scale)


def _scale(sample: Sample, scale: float) -> Sample:
    """Return what a sample would be with `scale` times the work: computing takes that longer."""
    if math.isclose(scale, 1.0):
        return sample
    first = sample.ranks[0]
    longer = [
        (scale - 1) * math.fsum(values)
        for values in zip(*(getattr(first, f"{part}_s") for part in COMPUTE), strict=True)
    ]
    ranks = tuple(
        replace(rank, **{
            f"{part}_s": tuple(scale * value for value in getattr(rank, f"{part}_s"))
            for part in COMPUTE
        })
        for rank in sample.ranks
    )  # fmt: skip
    steps = tuple(s + more for s, more in zip(sample.step_time_s, longer, strict=True))
    return replace(sample, step_time_s=steps, ranks=ranks)


def _fit_link(
    result: AllreduceResult, settings: ExchangeSettings, *, on_gpu: bool
) -> tuple[Link, str]:
    for backend in BACKENDS[settings.backend]:
        points = result.curve(backend)
        if len(points) >= FIT_SIZES:
            fit = fit_allreduce(
                points, result.n, algorithm=_algorithm(settings, on_gpu=on_gpu), name=backend
            )
            return fit.link, backend
    raise HpctrainError(
        f"no all-reduce of {' or '.join(BACKENDS[settings.backend])} was measured at "
        f"{FIT_SIZES} sizes"
    )


def _algorithm(settings: ExchangeSettings, *, on_gpu: bool) -> str:
    """Return how the ranks' all-reduce goes about it: NCCL and gloo in a ring, MPI as it likes."""
    return "ring" if on_gpu or settings.backend == "ddp" else "openmpi"


def _on_gpu(measured: Measured) -> bool:
    return measured.samples[0].device_name is not None


def _crowded(target: Measured, environment: Mapping[str, Any]) -> str | None:
    """Return why ranks outnumber cores somewhere; None where they do not, or that is unknown."""
    if _on_gpu(target):
        return None
    cores = host_cores(environment)
    ranks = ranks_per_host(target)
    for host, count in ranks.items():
        if cores.get(host) is not None and count > cores[host]:
            return (
                f"{count} ranks share {cores[host]} core{'' if cores[host] == 1 else 's'}, and "
                "the model has a core for each"
            )
    return None


def host_cores(environment: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the cores of each host, as far as they are known."""
    hosts = environment.get("hosts")
    if not isinstance(hosts, (list, tuple)):
        return {}
    return {host["name"]: host.get("cores") for host in hosts if isinstance(host, Mapping)}


def ranks_per_host(measured: Measured) -> dict[str, int]:
    """Return the ranks on each host of a case; without named hosts all on ``localhost``."""
    case = measured.case
    if case.hosts is None:
        return {"localhost": case.np}
    slots = sum(count for _, count in case.hosts)
    if case.np <= slots:
        return dict(case.hosts)
    share = math.ceil(case.np / len(case.hosts))
    return {name: share for name, _ in case.hosts}
