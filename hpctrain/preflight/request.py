"""What was typed → the tasks of every host, and what is wrong before any host is asked."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hpctrain.config import as_tables
from hpctrain.errors import ConfigError, HpctrainError, PlanError
from hpctrain.facts import Facts
from hpctrain.launch.conditions import TREE_LAUNCH_HOSTS
from hpctrain.launch.environment import plan_forwarding
from hpctrain.launch.plan import LaunchPlan, plan_launch
from hpctrain.launch.prepare import Asked, Prepared, gather_facts, prepare_request
from hpctrain.launch.ssh_config import render_ssh_config
from hpctrain.preflight import meetings
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
    """

    tasks: Mapping[str, NodeTask]
    local: frozenset[str]
    ssh_options: tuple[str, ...] = ()
    python_options: tuple[str, ...] = ()
    plan: LaunchPlan | None = None
    prepared: Prepared | None = None
    verdicts: tuple[Verdict, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

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
    def neighbours(self) -> dict[str, list[dict[str, Any]]]:
        """Host → the hosts that it tries to reach."""
        hosts = self.prepared.request.hosts if self.prepared else None
        return plan_neighbours(hosts or ())


def prepare_preflight(asked: Asked, environ: Mapping[str, str], *, about_a_run: bool) -> Request:
    """Read configuration and hosts, and plan the launch that the preflight is for.

    Args:
        about_a_run: whether a configuration or COMMAND was named; else only machines are looked at.

    Raises:
        HostfileError, PlanError: there is no telling which hosts are meant.
    """
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
    hosts = tuple(host.name for host in prepared.request.hosts or ()) or (socket.gethostname(),)
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
            "tree_launch": _starts_from_host_to_host(hosts, plan),
            **({"need": _plan_need(prepared, tasks)} if is_training else {}),
            "open-files": _most_open_files(),
        },
    )


def _starts_from_host_to_host(hosts: Sequence[str], plan: LaunchPlan | None) -> bool:
    """Whether hosts start each other: many do, unless the plan has the launcher start them all."""
    if plan is None or len(hosts) < TREE_LAUNCH_HOSTS:
        return False
    return not any("no_tree_spawn" in word for word in plan.command.argv)


def _most_open_files() -> int | None:
    """Return to how many files a launch can raise its own limit; None for any number."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _plan_need(prepared: Prepared, tasks: Mapping[str, NodeTask]) -> RunNeed | str:
    """Return what the training needs, or why that is not known."""
    try:
        return plan_need(prepared.config, max(1, sum(task.ranks for task in tasks.values())))
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
    addresses = {host: facts.addresses.get(host, ()) if facts else () for host in hosts}
    own = [a.partition("/")[0] for i in facts.launcher.interfaces if not i.is_virtual
           for a in i.addresses] if facts else []  # fmt: skip
    is_trainer = about_a_run and prepared.is_trainer
    meeting = meetings.plan_meetings(hosts, {**environ, **prepared.config.launch.env})
    return {
        host: NodeTask(
            host=host,
            ranks=ranks.get(host, 0 if plan else 1),
            np=plan.np if plan else len(hosts),
            hosts=addresses,
            program=() if prepared.is_trainer or not about_a_run else prepared.request.program,
            config=as_tables(prepared.config) if is_trainer else {},
            run_path=str(prepared.run_path.absolute()),
            cwd=os.getcwd(),
            subnet=plan.command.env.get("HPCTRAIN_SUBNET") if plan else None,
            environ=ranks_env,
            launcher=tuple(own),
            more={meetings.CODE: meeting[host]} if len(hosts) > 1 else {},
        )
        for host in hosts
    }


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
        asked = request.prepared.request
        text = render_ssh_config(asked.hosts or (), asked.ssh_configs)
    else:
        return request
    path = os.path.join(folder, "ssh_config")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return replace(request, ssh_options=("-F", path))


def describe_failure(problem: HpctrainError) -> list[Verdict]:
    """Return a verdict for each message of an error."""
    return [Verdict("plan", FAIL, message, "see above") for message in problem.messages]
