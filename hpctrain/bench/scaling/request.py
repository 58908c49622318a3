"""What a person typed → what is measured. Files are read and machines asked here, and only here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpctrain.bench.environment import probe_environment
from hpctrain.bench.scaling.asked import (
    FOLDER,
    BenchAsked,
    describe_asked,
    option_problems,
    warmup_steps_of,
)
from hpctrain.bench.scaling.cases import BenchPlan
from hpctrain.bench.scaling.metric import parse_metric
from hpctrain.bench.scaling.placements import Room
from hpctrain.bench.scaling.plan import (
    TIMED_STEPS,
    Wanted,
    plan_cases,
    plan_config,
    plan_threads,
    with_batch,
)
from hpctrain.bench.scaling.price import cluster_price, given_price
from hpctrain.config import Config
from hpctrain.errors import PlanError, raise_all
from hpctrain.facts import Facts
from hpctrain.hosts import LOCALHOST, Host
from hpctrain.launch.placement import merge_launcher, plan_placement
from hpctrain.launch.prepare import (
    Asked,
    Prepared,
    check_trainer,
    default_run_name,
    gather_facts,
    prepare_request,
)

PACKAGES = ("torch", "horovod")
UNLIMITED = 1 << 30
RUNS = "runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A measurement that can be started.

    Args:
        config: what all cases share.
        hosts: by name, with what ssh must know of them.
        notes: what was decided, in words.
        remeasure: trials, or cases, whose earlier figures do not count.
    """

    folder: Path
    plan: BenchPlan
    config: Config
    program: tuple[str, ...]
    hosts: Mapping[str, Host]
    ssh_config: Path | None
    oversubscribe: bool
    allreduce: bool
    metric: re.Pattern[str] | None
    timeout_s: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    remeasure: tuple[str, ...] = ()


def prepare_bench(asked: BenchAsked, environ: Mapping[str, str]) -> Bench:
    """Read, ask and plan; start nothing.

    Raises:
        PlanError: options that do not go together, sizes that have no room; or a cluster whose
            network this machine is outside of.
        ConfigError, HostfileError, ProbeError: as for ``hpctrain run``.
    """
    raise_all(PlanError, list(option_problems(asked)))
    metric = parse_metric(asked.metric) if asked.metric is not None else None
    price = _cluster_price(asked.run, environ)
    name = asked.name or default_run_name(asked.run.program, asked.run.config_name, FOLDER)
    folder = asked.out or FOLDER / name
    prepared = prepare_request(replace(asked.run, name=name, runs_dir=folder / RUNS), environ)
    facts = gather_facts(prepared, environ, probe=asked.probe)
    if prepared.is_trainer:
        check_trainer(prepared.config, facts)
    warnings = list(prepared.warnings)
    hosts, rooms = _find_rooms(prepared, facts, warnings)
    environment = _probe_environment(prepared.config, rooms, facts)
    if asked.usd_per_hour is not None:
        price = given_price(asked.usd_per_hour, environment["date"][:10])
    is_local = prepared.request.hosts is None
    plan, config, notes = plan_bench(
        asked, prepared.config, rooms, is_local=is_local, environment=environment, price=price
    )
    if config.launch.threads_per_rank is None:
        warnings, notes = [*warnings, *notes], ()
    return Bench(
        folder=folder, plan=plan, config=config, program=asked.run.program,
        hosts={host.name: host for host in hosts}, ssh_config=_ssh_config(prepared),
        oversubscribe=asked.run.oversubscribe, allreduce=asked.allreduce, metric=metric,
        timeout_s=asked.timeout_s, warnings=tuple(warnings), notes=notes,
        remeasure=asked.remeasure,
    )  # fmt: skip


def plan_bench(
    asked: BenchAsked,
    config: Config,
    rooms: tuple[Room, ...],
    *,
    is_local: bool,
    environment: Mapping[str, Any],
    price: Mapping[str, Any] | None,
) -> tuple[BenchPlan, Config, tuple[str, ...]]:
    """Return the plan, the configuration that its cases share, and what was decided; pure.

    Args:
        config: as it was typed.

    Raises:
        PlanError: as :func:`hpctrain.bench.scaling.plan.plan_cases`.
    """
    wanted = Wanted(
        sizes=asked.sizes,
        modes=("weak", "strong") if asked.mode == "both" else (asked.mode or "weak",),
        precisions=asked.precisions,
        is_trainer=not asked.run.program,
        is_local=is_local,
    )
    cases = plan_cases(wanted, config.train, rooms)
    threads, why = plan_threads(config, cases, rooms)
    warmup = warmup_steps_of(asked)
    timed = (asked.timed_steps or TIMED_STEPS) if wanted.is_trainer else None
    shared = plan_config(config, max(1, warmup + (timed or 0)), threads)
    typed = with_batch(shared, config)
    plan = BenchPlan(
        cases=cases, repeats=asked.repeats, warmup_steps=warmup, timed_steps=timed,
        asked=describe_asked(asked, wanted, cases, rooms, typed, warmup, timed),
        environment=environment, usd_per_hour=price,
    )  # fmt: skip
    return plan, shared, (f"threads per rank: {threads or 'each host its own'} ({why})",)


def _cluster_price(run: Asked, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what the named cluster costs.

    Raises:
        PlanError: this machine is outside its network.
    """
    if run.cluster is None:
        return None
    from hpctrain.clusters.overview import read_cluster

    directory, record = read_cluster(run.cluster, environ, "--cluster")
    price = cluster_price(record)
    if record.reachable_from_here:
        return price
    usd = f" --usd-per-hour {price['value']:.2f}" if price else ""
    raise PlanError(
        f"--cluster: this machine is outside the network of {directory.name}; expected a bench "
        "that is started on its head, for each trial is a launch of its own. Send code and data "
        f"by a short `hpctrain run --cluster {directory.name} …`, log in by `hpctrain cluster ssh "
        f"--name {directory.name}`, and there, in the folder below hpctrain-work: "
        f"hpctrain bench --hosts .hpctrain/hostfile{usd}"
    )


def _find_rooms(
    prepared: Prepared, facts: Facts, warnings: list[str]
) -> tuple[list[Host], tuple[Room, ...]]:
    """Return the hosts, and how many ranks each takes, as ``hpctrain run`` counts them."""
    request = prepared.request
    hosts = merge_launcher(request.hosts or (Host(LOCALHOST),), facts)
    all_slots = plan_placement(replace(request, np=None), facts, warnings)
    rooms = []
    for host, place in zip(hosts, all_slots, strict=True):
        known = facts.of(host.name)
        limit = host.max_slots or (UNLIMITED if request.oversubscribe else place.slots)
        cores = known.cores if known else None
        rooms.append(Room(name=host.name, slots=place.slots, limit=limit, cores=cores))
    return hosts, tuple(rooms)


def _probe_environment(config: Config, rooms: tuple[Room, ...], facts: Facts) -> dict[str, Any]:
    found = probe_environment(PACKAGES, mpirun=config.launch.mpirun)
    hosts = []
    for room in rooms:
        known = facts.of(room.name)
        gpus = list(known.gpus) if known else None
        hosts.append({"name": room.name, "slots": room.slots, "cores": room.cores, "gpus": gpus})
    return {**found, "hosts": hosts}


def _ssh_config(prepared: Prepared) -> Path | None:
    paths = prepared.request.ssh_configs
    return Path(paths[0]) if paths else None
