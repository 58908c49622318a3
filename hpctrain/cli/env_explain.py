"""``hpctrain env explain``: parse, ask, explain, print."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hpctrain.cli.launch_options import config_option, host_options, json_option, set_option


@click.command(
    epilog="""\b
Examples:
  hpctrain env explain                                   this machine
  hpctrain env explain --hosts hostfile                  every host, asked over ssh
  hpctrain env explain --cluster lab --config demo       with that configuration's launch.env
  hpctrain env explain --json | jq '.hosts[].findings'

\b
Exit codes: 0 shown, whatever was found; 1 a host did not answer; 2 usage.
"""
)
@host_options
@config_option
@set_option
@json_option
def command(
    hosts: Path | None,
    cluster: str | None,
    host_list: str | None,
    config_name: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show every NCCL, MPI, UCX, FI and HOROVOD variable that a run would have, and who sets it.

    Names that nothing reads, settings that contradict each other and variables of another cloud
    are flagged.
    """
    import json

    from hpctrain.launch.plan import plan_launch
    from hpctrain.launch.prepare import Asked, gather_facts, prepare_request
    from hpctrain.variables import show
    from hpctrain.variables.gather import explain_hosts

    if cluster is not None:
        from hpctrain.clusters.from_outside import refuse_outside

        refuse_outside(cluster, os.environ, "ask")
    asked = Asked(
        hosts_file=hosts,
        host_list=host_list,
        cluster=cluster,
        config_name=config_name,
        overrides=overrides,
    )
    prepared = prepare_request(asked, os.environ)
    if hosts_asked := len(prepared.request.hosts or ()):
        click.echo(f"asking {hosts_asked} host{'s' if hosts_asked > 1 else ''} …", err=True)
    facts = gather_facts(prepared, os.environ, probe=True)
    plan = plan_launch(prepared.request, facts)
    explained, differences = explain_hosts(prepared, plan, facts, os.environ)
    if as_json:
        click.echo(json.dumps(show.as_json(explained, differences), indent=1))
    else:
        show.print_explained(explained, differences, plan.warnings)
