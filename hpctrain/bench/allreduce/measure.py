"""Run the all-reduce worker on all ranks of one launch, and read what it found."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hpctrain.bench.allreduce.results import (
    AllreducePoint,
    AllreduceResult,
    Skipped,
    check_result,
    point_from_json,
)
from hpctrain.bench.allreduce.sizes import (
    DEFAULT_BACKENDS,
    DEFAULT_BUDGET_S,
    DEFAULT_REPEATS,
    DEFAULT_SIZES,
    AllreducePlan,
    plan_allreduce,
)
from hpctrain.bench.trial import Trial, run_trial
from hpctrain.errors import BenchError, PlanError
from hpctrain.hosts import Host
from hpctrain.launch.prepare import SAFE_PATH
from hpctrain.rundir import read_events

WORKER = (sys.executable, *SAFE_PATH, "-m", "hpctrain.bench.allreduce.worker")
# How ranks agree before anything is measured; the first that is installed.
CONTROLS = ("mpi4py", "horovod", "torch")
# The budget is kept roughly: a first all-reduce of a size may take longer than was foreseen.
TIMEOUT_S, TIMEOUT_FACTOR = 300.0, 3.0


def run_allreduce(
    runs_dir: Path,
    name: str,
    np: int,
    hosts: tuple[Host, ...] | None = None,
    ssh_config: Path | None = None,
    backends: Sequence[str] = DEFAULT_BACKENDS,
    sizes: Sequence[int] = DEFAULT_SIZES,
    repeats: int = DEFAULT_REPEATS,
    budget_s: float = DEFAULT_BUDGET_S,
    oversubscribe: bool = False,
    *,
    device: str = "auto",
    overrides: tuple[str, ...] = (),
    on_point: Callable[[int], None] | None = None,
) -> AllreduceResult:
    """Measure all-reduce on `np` ranks and return what was found; every element was right.

    Args:
        sizes: of the messages (bytes).
        repeats: at most so many timings a size and backend.
        budget_s: about so long in all, the start not counted.
        device: ``auto``, ``cpu`` or ``cuda``, as `train.device`.
        overrides: ``section.key=value`` for the launch.
        on_point: called with the number of sizes and backends that are done.

    Raises:
        ConfigError: sizes, backends or repeats make no sense.
        BenchError: the launch failed, or an element was wrong.
    """
    plan = plan_allreduce(sizes, backends, repeats, budget_s)
    trial = plan_allreduce_trial(
        plan, runs_dir=runs_dir, name=name, np=np, hosts=hosts, ssh_config=ssh_config,
        oversubscribe=oversubscribe, device=device, overrides=overrides,
    )  # fmt: skip
    return check_result(read_allreduce(run_trial(trial, on_point)))


def plan_allreduce_trial(
    plan: AllreducePlan,
    *,
    runs_dir: Path,
    name: str,
    np: int,
    hosts: tuple[Host, ...] | None = None,
    ssh_config: Path | None = None,
    oversubscribe: bool = False,
    device: str = "auto",
    overrides: tuple[str, ...] = (),
) -> Trial:
    """Return the launch that measures a plan.

    Raises:
        PlanError: there is no library here by which ranks could talk at all.
    """
    words = ["--control", _choose_control(), "--device", device]
    words += ["--backends", ",".join(plan.backends)]
    words += ["--sizes", ",".join(map(str, plan.sizes))]
    words += ["--repeats", str(plan.repeats), "--budget", f"{plan.budget_s:g}"]
    return Trial(
        name=name, runs_dir=runs_dir, np=np, program=(*WORKER, *words), hosts=hosts,
        ssh_config=ssh_config, overrides=overrides, oversubscribe=oversubscribe,
        timeout_s=TIMEOUT_S + TIMEOUT_FACTOR * plan.budget_s,
    )  # fmt: skip


def read_allreduce(run_path: Path) -> AllreduceResult:
    """Return what a finished launch of the worker found.

    Raises:
        BenchError: it reported no end.
    """
    points: list[AllreducePoint] = []
    skipped: list[Skipped] = []
    done = None
    for event in read_events(run_path):
        if event.get("event") == "allreduce_point":
            points.append(point_from_json(event))
        elif event.get("event") == "allreduce_skipped":
            skipped.append(
                Skipped(backend=event["backend"], bytes_=event["bytes"], reason=event["reason"])
            )
        elif event.get("event") == "allreduce_done":
            done = event
    if done is None:
        raise BenchError(
            f"{run_path}: the all-reduce was not measured to its end, got {len(points)} points; "
            f"expected an event allreduce_done. What the ranks said: {run_path / 'logs'}"
        )
    return AllreduceResult(
        n=done["n"], nodes=done["nodes"], placement=done["placement"], points=tuple(points),
        skipped=tuple(skipped), environment=done["environment"],
    )  # fmt: skip


def write_allreduce(path: Path, result: AllreduceResult) -> None:
    """Write a result as JSON, complete or not at all."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def _choose_control() -> str:
    found = [name for name in CONTROLS if importlib.util.find_spec(name) is not None]
    if not found:
        raise PlanError(
            f"bench allreduce: ranks cannot talk, got none of {', '.join(CONTROLS)} beside "
            f"{sys.executable}; expected one. Install one: make setup"
        )
    return found[0]
