"""What a person typed → the launch that measures it, checked before anything is started."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpctrain.bench.allreduce.measure import plan_allreduce_trial
from hpctrain.bench.allreduce.sizes import AllreducePlan, render_size
from hpctrain.bench.trial import Trial
from hpctrain.launch.prepare import Asked, gather_facts, prepare_request


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """On which hosts, as ``hpctrain run`` takes them."""

    np: int | None = None
    hosts_file: Path | None = None
    host_list: str | None = None
    cluster: str | None = None
    oversubscribe: bool = False
    overrides: tuple[str, ...] = ()
    device: str = "auto"


def prepare_allreduce(
    plan: AllreducePlan, where: Where, runs_dir: Path, name: str | None, environ: Mapping[str, str]
) -> tuple[Trial, tuple[str, ...]]:
    """Return the launch with its hosts and ranks, and warnings; other hosts are not asked.

    Raises:
        PlanError: the ranks do not fit, or the cluster's hosts cannot be reached from here.
        HostfileError, ConfigError, RunDirectoryError: as their pages say.
    """
    if where.cluster is not None:
        from hpctrain.clusters.from_outside import refuse_outside

        refuse_outside(where.cluster, environ, "measure")
    name = name or f"allreduce-{time.strftime('%Y%m%d-%H%M%S')}"
    draft = plan_allreduce_trial(plan, runs_dir=runs_dir, name=name, np=1, device=where.device)
    prepared = prepare_request(
        Asked(
            program=draft.program, np=where.np, hosts_file=where.hosts_file,
            host_list=where.host_list, cluster=where.cluster, overrides=where.overrides,
            name=name, runs_dir=runs_dir, oversubscribe=where.oversubscribe,
        ),
        environ,
    )  # fmt: skip
    from hpctrain.launch.plan import plan_launch

    launch = plan_launch(prepared.request, gather_facts(prepared, environ))
    request = prepared.request
    trial = plan_allreduce_trial(
        plan, runs_dir=runs_dir, name=name, np=launch.np, hosts=request.hosts,
        ssh_config=Path(request.ssh_configs[0]) if request.ssh_configs else None,
        oversubscribe=where.oversubscribe, device=where.device, overrides=where.overrides,
    )  # fmt: skip
    return trial, (*prepared.warnings, *launch.warnings)


def describe_plan(plan: AllreducePlan, np: int) -> str:
    """Return what will be measured and how long it takes, as a sentence.

    >>> describe_plan(AllreducePlan(), 2)
    '14 sizes from 4 to 256M bytes, horovod, mpi4py and torch, 2 ranks: about 70 s at most'
    """
    first, last = render_size(plan.sizes[0]), render_size(plan.sizes[-1])
    sizes = f"{len(plan.sizes)} sizes from {first} to {last} bytes"
    sizes = sizes if len(plan.sizes) > 1 else f"{first} bytes"
    *others, backend = plan.backends
    backends = f"{', '.join(others)} and {backend}" if others else backend
    ranks = "1 rank" if np == 1 else f"{np} ranks"
    return f"{sizes}, {backends}, {ranks}: about {plan.longest_s:.0f} s at most"
