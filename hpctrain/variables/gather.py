"""Ask every host of a request for its variables, and put together what is in force on each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpctrain.errors import ProbeError, raise_all
from hpctrain.executor import Command, SshExecutor, run_on_all
from hpctrain.facts import Facts, HostFacts
from hpctrain.hosts import Host
from hpctrain.launch.environment import plan_forwarding, plan_import_path
from hpctrain.launch.plan import LaunchPlan
from hpctrain.launch.prepare import SAFE_PATH, Prepared
from hpctrain.launch.ssh_config import host_alias
from hpctrain.variables.explain import Variable, explain_variables
from hpctrain.variables.findings import Finding, find_differences, find_problems
from hpctrain.variables.host import (
    MARK,
    HostVariables,
    host_variables_from_json,
    probe_variables,
)

ASK_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class HostExplained:
    """One host's variables, and what is wrong with them."""

    host: str
    variables: tuple[Variable, ...]
    findings: tuple[Finding, ...]


def explain_hosts(
    prepared: Prepared, plan: LaunchPlan, facts: Facts, environ: Mapping[str, str]
) -> tuple[list[HostExplained], list[Finding]]:
    """Return each host's variables, and what differs between hosts.

    Raises:
        ProbeError: naming every host that did not answer.
    """
    names = [place.host for place in plan.placement]
    local = [name for name in names if facts.is_launcher(name)]
    prefix = mpi_prefix(facts.mpirun)
    found = {name: probe_variables(environ, prefix) for name in local}
    hosts = [host for host in prepared.request.hosts or () if host.name in names]
    found |= ask_hosts(
        [host for host in hosts if host.name not in found], prepared, facts, prefix, environ
    )
    launch_env = prepared.config.launch.env
    forwarded, _ = plan_forwarding(environ, plan.command.env, prepared.config.launch.forward)
    explained = []
    for name in names:
        shell = {n: v for n, v in environ.items() if name in local or n in forwarded}
        # What a rule sets is never in the shell as well: the shell's is left alone.
        variables = explain_variables(found[name], plan, shell, launch_env, prefix)
        known: HostFacts | None = facts.of(name)
        problems = find_problems(variables, found[name].interfaces, known)
        explained.append(HostExplained(name, variables, tuple(problems)))
    differences = find_differences({each.host: each.variables for each in explained})
    return explained, differences


def ask_hosts(
    hosts: Sequence[Host],
    prepared: Prepared,
    facts: Facts,
    prefix: str,
    environ: Mapping[str, str],
) -> dict[str, HostVariables]:
    """Ask other hosts over ssh, all at once.

    Raises:
        ProbeError: naming every host that did not answer.
    """
    from hpctrain.probe import facts_cache

    named = [environ["NCCL_CONF_FILE"]] if environ.get("NCCL_CONF_FILE") else []
    module = ("-m", "hpctrain.variables.host", prefix, *named)
    command = Command((prepared.request.python, *SAFE_PATH, *module), plan_import_path(environ))
    options = ("-F", str(facts_cache() / "ssh_config"))

    def ask(host: Host) -> HostVariables | str:
        done = SshExecutor(host_alias(host.name), options).run(command, timeout_s=ASK_TIMEOUT_S)
        for line in done.stdout.splitlines():
            if line.startswith(MARK):
                return host_variables_from_json(json.loads(line.removeprefix(MARK)))
        return f"{host.name}: cannot be asked for its variables: {done.last_words}"

    answers = dict(zip((host.name for host in hosts), run_on_all(ask, hosts), strict=True))
    raise_all(ProbeError, [answer for answer in answers.values() if isinstance(answer, str)])
    return {name: each for name, each in answers.items() if isinstance(each, HostVariables)}


def mpi_prefix(mpirun: str) -> str:
    """Return the folder above MPI's bin/.

    >>> mpi_prefix("/opt/mpi/bin/mpirun")
    '/opt/mpi'
    """
    return os.path.dirname(os.path.dirname(mpirun))
