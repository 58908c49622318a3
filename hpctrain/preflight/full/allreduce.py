"""Do all ranks sum right together, and how fast? By `hpctrain bench allreduce`'s worker."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hpctrain.bench.allreduce.measure import plan_allreduce_trial, read_allreduce
from hpctrain.bench.allreduce.results import AllreduceResult, check_result, result_from_json
from hpctrain.bench.allreduce.sizes import plan_allreduce, render_size
from hpctrain.bench.trial import Trial, run_trial
from hpctrain.errors import BenchError, HpctrainError
from hpctrain.hosts import Host
from hpctrain.preflight.check import FULL, Check
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.full.place import Place, explain_failure
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, Verdict

CODE = "all-reduce"
SIZES = (4, 1 << 20, 16 << 20)  # what a call costs, and what a bucket of gradients does
REPEATS, BUDGET_S = 9, 20.0
TIMEOUT_S = 180.0
BY_HAND = "hpctrain bench allreduce, with the same hosts"
# comm.backend → what its exchange sums with; else the first that is installed.
_BACKENDS = {"horovod": "horovod", "ddp": "torch", "none": "torch"}
_MODULES = {"horovod": "horovod", "torch": "torch", "mpi4py": "mpi4py"}


def run_all_reduce(place: Place) -> dict[str, Any]:
    """Sum messages of three sizes over all ranks; return the result, or {"error": why}."""
    try:
        trial = plan_trial_of(place, CODE, place.np, SIZES, REPEATS, BUDGET_S, TIMEOUT_S)
        return as_fact(read_allreduce(run_trial(trial, place.on_step)))
    except HpctrainError as problem:
        return {"error": explain_failure(problem, place.folder)}


def plan_trial_of(
    place: Place, name: str, np: int, sizes: tuple[int, ...], repeats: int, budget_s: float,
    timeout_s: float, hosts: tuple[Host, ...] | None = None,
) -> Trial:  # fmt: skip
    """Return the launch that measures sizes with what the run will sum with.

    Args:
        hosts: None for all of the run's.
    """
    plan = plan_allreduce(sizes, (choose_backend(place.config.comm.backend),), repeats, budget_s)
    device = place.config.train.device if place.is_training else "auto"
    trial = plan_allreduce_trial(
        plan, runs_dir=place.folder, name=name, np=np, hosts=hosts, device=device
    )
    return replace(place.put(trial), timeout_s=timeout_s)


def choose_backend(backend: str) -> str:
    """Return which library to sum with: the run's, where it is installed."""
    wanted = _BACKENDS.get(backend, "horovod")
    names = [wanted, *_MODULES]
    return next((n for n in names if importlib.util.find_spec(_MODULES[n]) is not None), wanted)


def as_fact(result: AllreduceResult) -> dict[str, Any]:
    """Return a result as JSON; it is judged later, wrong elements included.

    Raises:
        BenchError: nothing was measured.
    """
    if not result.points:
        check_result(result)  # says why
    return result.as_json()


def judge_all_reduce(fleet: Fleet) -> Iterator[Verdict]:
    """Judge what the launch over all ranks found."""
    found = fleet.facts.get(CODE, {"skip": "not run"})
    if "skip" in found:
        yield Verdict(CODE, SKIP, found["skip"])
        return
    if "error" in found:
        yield Verdict(CODE, FAIL, found["error"], BY_HAND, "sums that are right")
        return
    result = result_from_json(found)
    try:
        check_result(result)
    except BenchError as wrong:
        fix = "which hosts it is: hpctrain preflight --only pairs"
        yield Verdict(CODE, FAIL, "; ".join(wrong.messages), fix)
        return
    points = sorted(result.points, key=lambda point: point.bytes_)
    large, small = points[-1], points[0]
    checked = sum(point.checked for point in points)
    ranks = "1 rank, nothing is exchanged" if result.n == 1 else f"{result.n} ranks"
    yield Verdict(
        CODE, PASS,
        f"{large.backend}, {large.device}, {ranks}: {render_size(large.bytes_)} at "
        f"{large.busbw_gb_per_s:.3g} GB/s busbw, {small.bytes_} bytes in "
        f"{1e6 * small.median_s:.0f} us; all of {checked:,} elements right",
    )  # fmt: skip


ALL_REDUCE = Check(CODE, judge_all_reduce, (), FULL)
