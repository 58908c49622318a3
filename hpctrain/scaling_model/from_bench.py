"""A step and links, calibrated from the folder of a scaling measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpctrain.bench.samples import PARTS, RankSteps, Sample
from hpctrain.errors import BenchError
from hpctrain.scaling_model.calibrate import calibrate
from hpctrain.scaling_model.links import Link, LinkFit
from hpctrain.scaling_model.step import StepModel

if TYPE_CHECKING:
    from hpctrain.bench.allreduce.results import AllreduceResult

BACKENDS = ("horovod", "mpi4py", "torch")  # the trainer's own first


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredBase:
    """What a measurement gives to predict from; links that it did not use are None.

    Args:
        compression: what its gradients travelled as, `comm.compression`.
    """

    step: StepModel
    inter: Link | None
    intra: Link | None
    ranks_per_node: int
    algorithm: str
    compression: str


def calibrate_from_bench(folder: Path) -> MeasuredBase:
    """Return what a folder that `hpctrain bench` wrote gives.

    Raises:
        BenchError: there is no measurement there, none of one rank, or it has no parts.
    """
    from hpctrain.bench.scaling.cases import read_bench

    plan, stored, allreduces = read_bench(folder)
    sizes = {case.key: (case.np, case.nodes) for case in plan.cases if case.mode == "weak"}
    samples: dict[tuple[int, int], list[Sample]] = {}
    for one in stored:
        if one.case in sizes and one.sample.step_time_s:
            samples.setdefault(sizes[one.case], []).append(one.sample)
    if not samples.get((1, 1)):
        raise BenchError(
            f"{folder}: no steps of one rank, got np {sorted(np for np, _ in samples) or 'none'}; "
            "expected np 1 with --mode weak. Measure again: hpctrain bench --np 1,2,4"
        )
    config = plan.asked.get("config", {})
    return combine(samples, config, allreduces)


def combine(
    samples: Mapping[tuple[int, int], Sequence[Sample]],
    config: Mapping[str, Mapping[str, Any]],
    allreduces: Mapping[str, AllreduceResult],
) -> MeasuredBase:
    """Return a step and links.

    Args:
        samples: repeats by (ranks, nodes); at least those of (1, 1).
        config: the tables of the configuration that was measured.
        allreduces: by placement.
    """
    comm, train = config.get("comm", {}), config.get("train", {})
    first = _only_precision(samples[1, 1])
    two = next((samples[size] for size in ((2, 1), (2, 2)) if samples.get(size)), None)
    step = calibrate(
        merge_samples(first),
        merge_samples([s for s in two if s.precision == first[0].precision]) if two else None,
        bucket_mb=comm.get("bucket_mb", 25.0),
        compression=comm.get("compression", "none"),
        accum=train.get("grad_accum_steps", 1),
        backend=comm.get("backend", "horovod"),
    )
    inter, intra = choose_links(allreduces.values())
    on_gpu = first[0].ranks[0].device.startswith("cuda")
    return MeasuredBase(
        step=step,
        inter=inter,
        intra=intra,
        ranks_per_node=max(np // nodes for np, nodes in samples),
        algorithm="nccl" if on_gpu else "openmpi",
        compression=comm.get("compression", "none"),
    )


def choose_links(results: Iterable[AllreduceResult]) -> tuple[Link | None, Link | None]:
    """Return the links between nodes and within one, from the all-reduces that show them best:
    of one rank on each of the fewest nodes, and of the fewest ranks of one node."""
    results = sorted((r for r in results if r.n > 1), key=lambda r: (r.n // r.nodes, r.n))
    inter = next((r for r in results if r.nodes > 1), None)
    intra = next((r for r in results if r.nodes == 1), None)
    return _fit(inter), _fit(intra)


def merge_samples(samples: Sequence[Sample]) -> Sample:
    """Return repeats of a trial as one, their steps one after the other."""
    first = samples[0]
    ranks = []
    for place, rank in enumerate(first.ranks):
        steps = {
            f"{part}_s": tuple(
                value for sample in samples for value in getattr(sample.ranks[place], f"{part}_s")
            )
            for part in PARTS
        }
        ranks.append(replace(rank, **steps) if isinstance(rank, RankSteps) else rank)
    step_time_s = tuple(value for sample in samples for value in sample.step_time_s)
    return replace(first, step_time_s=step_time_s, ranks=tuple(ranks))


def _only_precision(samples: Sequence[Sample]) -> list[Sample]:
    """Return those of the first one's precision."""
    return [sample for sample in samples if sample.precision == samples[0].precision]


def _fit(result: AllreduceResult | None) -> Link | None:
    if result is None:
        return None
    from hpctrain.bench.allreduce.results import fit_links

    fits: dict[str, LinkFit] = fit_links(result)
    return next((fits[name].link for name in BACKENDS if name in fits), None)
