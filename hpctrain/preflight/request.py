"""What was typed → the tasks of every host, and what is wrong before any host is asked."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hpctrain.config import as_tables
from hpctrain.errors import ConfigError, HpctrainError, PlanError
from hpctrain.facts import Facts
from hpctrain.hosts import Host
from hpctrain.launch.conditions import TREE_LAUNCH_HOSTS
from hpctrain.launch.environment import plan_forwarding
from hpctrain.launch.plan import LaunchPlan, plan_launch
from hpctrain.launch.prepare import Asked, Prepared, gather_facts, prepare_request
from hpctrain.launch.ssh_config import render_ssh_config
from hpctrain.preflight import meetings
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.judge_config import ConfigFacts, gather_config_facts
from hpctrain.preflight.need import RunNeed, plan_need
from hpctrain.preflight.ring import plan_neighbours
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, WARN, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A preflight that can begin.

    Args:
        tasks: host → what it is asked, without the names of probes.
        local: hosts that are this machine.
        plan: the launch that would run; None where it cannot be planned.
        verdicts: what is known to be wrong, or odd, already.
        asked: the command line, so that fixes can repeat it.
    """

    tasks: Mapping[str, NodeTask]
    local: frozenset[str]
    ssh_options: tuple[str, ...] = ()
    python_options: tuple[str, ...] = ()
    plan: LaunchPlan | None = None
    prepared: Prepared | None = None
    verdicts: tuple[Verdict, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    asked: Asked | None = None

    @property
    def machines(self) -> int:
        """How many machines take part, this one included."""
        return len(self.tasks) + (not self.local)

    @property
    def head_address(self) -> str:
        """Where hosts would reach this machine; empty where none is known."""
        address = self.plan.channel_address if self.plan else ""
        return "" if address.startswith("127.") else address

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts that were named, spares last; none for this machine alone."""
        return _named_hosts(self.prepared) if self.prepared else ()

    @property
    def ssh_config(self) -> str:
        """The file beside the hostfile that a person's ssh needs; empty where there is none."""
        return "".join(self.prepared.request.ssh_configs[:1]) if self.prepared else ""


def prepare_preflight(asked: Asked, environ: Mapping[str, str], *, about_a_run: bool) -> Request:
    """Read configuration and hosts, and plan the launch that the preflight is for.

    Args:
        about_a_run: whether a configuration or COMMAND was named; else only machines are looked at.

    Raises:
        HostfileError, PlanError: there is no telling which hosts are meant, or this machine is
            outside the cluster's network.
    """
    if asked.cluster is not None:
        from hpctrain.clusters.from_outside import refuse_outside

        refuse_outside(asked.cluster, environ, "run preflight")
    verdicts: list[Verdict] = []
    config: ConfigFacts | None = None
    try:
        prepared = prepare_request(asked, environ)
    except ConfigError as wrong:
        # Its hosts can be looked at all the same; the check of the configuration says the rest.
        config = gather_config_facts(asked, asked.np, wrong.messages)
        prepared = prepare_request(replace(asked, config_name=None, overrides=()), environ)
        about_a_run = False
    verdicts += [Verdict("plan", WARN, text, "see docs/run.md") for text in prepared.warnings]
    plan, facts = None, None
    try:
        facts = gather_facts(prepared, environ)
        plan = plan_launch(prepared.request, facts)
    except PlanError as wrong:
        if about_a_run or prepared.request.hosts:  # else the check of MPI says it
            verdicts += [Verdict("plan", FAIL, message, "see above") for message in wrong.messages]
    hosts = tuple(host.name for host in _named_hosts(prepared)) or (socket.gethostname(),)
    local = frozenset(host for host in hosts if _is_local(host, facts, prepared))
    if config is None and (about_a_run or asked.config_name or asked.overrides):
        np = plan.np if plan else prepared.request.np
        config = gather_config_facts(asked, np, is_local=local == set(hosts))
    tasks = _plan_tasks(hosts, prepared, plan, facts, environ, about_a_run=about_a_run)
    is_training = about_a_run and prepared.is_trainer
    return Request(
        tasks=tasks,
        local=local,
        ssh_options=_ssh_options(plan),
        python_options=prepared.request.python_options,
        plan=plan,
        prepared=prepared,
        verdicts=tuple(verdicts),
        facts={
            "config": config,
            "tree_launch": facts is not None and starts_from_host_to_host(plan, facts.mpi_flavour),
            **({"need": _plan_need(prepared, tasks)} if is_training else {}),
            "open-files": _most_open_files(),
        },
        asked=asked,
    )


def _named_hosts(prepared: Prepared) -> tuple[Host, ...]:
    return (*(prepared.request.hosts or ()), *prepared.request.spares)


def starts_from_host_to_host(plan: LaunchPlan | None, mpi_flavour: str) -> bool:
    """Whether hosts start each other: many do, unless the launcher starts them all.

    MPICH's Hydra always starts all; of Open MPI the plan says so.
    """
    if plan is None or len(plan.placement) < TREE_LAUNCH_HOSTS or mpi_flavour == "mpich":
        return False
    return not any("no_tree_spawn" in word for word in plan.command.argv)


def _most_open_files() -> int | None:
    """Return to how many files a launch can raise its own limit; None for any number."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _plan_need(prepared: Prepared, tasks: Mapping[str, NodeTask]) -> RunNeed | str:
    """Return what the training needs, or why that is not known."""
    try:
        return plan_need(prepared.config, max(1, Fleet(tasks=tasks).np))
    except ConfigError as wrong:
        return wrong.messages[0]


def _is_local(host: str, facts: Facts | None, prepared: Prepared) -> bool:
    if prepared.request.hosts is None:
        return True
    if facts is not None:
        return facts.is_launcher(host)
    return host in ("localhost", socket.gethostname())


def _plan_tasks(
    hosts: tuple[str, ...], prepared: Prepared, plan: LaunchPlan | None, facts: Facts | None,
    environ: Mapping[str, str], *, about_a_run: bool,
) -> dict[str, NodeTask]:  # fmt: skip
    ranks = {place.host: place.ranks for place in plan.placement} if plan else {}
    if plan and prepared.request.hosts is None:  # planned for "localhost"
        ranks = {hosts[0]: plan.np}
    planned = plan.command.env if plan else {}
    names, _ = plan_forwarding(environ, planned, prepared.config.launch.forward)
    ranks_env = {name: environ[name] for name in names if name in environ}
    ranks_env |= {name: value for name, value in planned.items() if value}
    most_ranks = max(ranks.values(), default=1)
    # A spare takes the ranks of a host that has failed.
    spares = {
        host.name: min(host.slots or most_ranks, most_ranks) for host in prepared.request.spares
    }
    own = [a.partition("/")[0] for i in facts.launcher.interfaces if not i.is_virtual
           for a in i.addresses] if facts else []  # fmt: skip
    config = as_tables(prepared.config) if about_a_run and prepared.is_trainer else {}
    tries = _plan_tries(hosts, prepared, environ)
    addresses = facts.addresses if facts else {}
    return {
        host: NodeTask(
            host=host,
            ranks=spares.get(host, ranks.get(host, 0 if plan else 1)),
            np=plan.np if plan else len(hosts),
            hosts={name: addresses.get(name, ()) for name in _tried(tries[host])},
            program=() if prepared.is_trainer or not about_a_run else prepared.request.program,
            config=config,
            run_path=str(prepared.run_path.absolute()),
            cwd=os.getcwd(),
            subnet=plan.command.env.get("HPCTRAIN_SUBNET") if plan else None,
            environ=ranks_env,
            launcher=tuple(own),
            mpirun=prepared.config.launch.mpirun,
            is_spare=host in spares,
            more=tries[host],
        )
        for host in hosts
    }


def _plan_tries(
    hosts: tuple[str, ...], prepared: Prepared, environ: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return host → whom it tries to log in to, and whom it tries to connect to."""
    if len(hosts) < 2:
        return {host: {"neighbours": []} for host in hosts}
    ring = plan_neighbours(_named_hosts(prepared))
    meeting = meetings.plan_meetings(hosts, {**environ, **prepared.config.launch.env})
    return {host: {"neighbours": ring[host], meetings.CODE: meeting[host]} for host in hosts}


def _tried(tries: Mapping[str, Any]) -> set[str]:
    connected = tries.get(meetings.CODE, {}).get("neighbours", [])
    return {*connected, *(peer["name"] for peer in tries["neighbours"])}


def _ssh_options(plan: LaunchPlan | None) -> tuple[str, ...]:
    return plan.ssh_options if plan else ()


def write_ssh_config(request: Request, folder: str) -> Request:
    """Write the plan's ssh configuration into a folder, and use it from there.

    The plan names a path in the run's directory, which does not exist before the run. Where
    nothing could be planned, hosts are asked all the same.
    """
    if request.plan is not None and request.ssh_options:
        text = request.plan.files[request.ssh_options[1]]
    elif request.prepared is not None and set(request.tasks) - request.local:
        text = render_ssh_config(request.hosts, request.prepared.request.ssh_configs)
    else:
        return request
    path = os.path.join(folder, "ssh_config")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return replace(request, ssh_options=("-F", path))


def describe_failure(problem: HpctrainError) -> list[Verdict]:
    """Return a verdict for each message of an error."""
    return [Verdict("plan", FAIL, message, "see above") for message in problem.messages]
