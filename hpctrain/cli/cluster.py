"""``hpctrain cluster``: parse, plan, execute, print."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpctrain.cli.cluster_options import (
    complete_cluster_name,
    complete_fault,
    complete_node,
    name_option,
    request_from,
    request_options,
    yes_option,
)
from hpctrain.cli.launch_options import json_option

if TYPE_CHECKING:
    from hpctrain.clusters.cluster_dir import ClusterDirectory
    from hpctrain.clusters.provider import ClusterPlan, ClusterRequest


@click.group(
    epilog="""\b
Examples:
  hpctrain cluster up --nodes 4                     a lab of four nodes on this machine
  hpctrain run --np 8 --cluster lab --config demo   train on it
  hpctrain cluster up --bandwidth 1gbit --latency 1ms --bandwidth n2=50mbit
  hpctrain cluster fault n2 link-down
  hpctrain cluster ssh n1 -- hostname
  hpctrain cluster down
"""
)
def command() -> None:
    """Make clusters, look at them, disturb them, remove them."""


@command.command()
@request_options
@json_option
def plan(as_json: bool, **asked: Any) -> None:
    """Show what `up` would do."""
    _, made = _plan(request_from(**asked))
    _print_plan(made, as_json)


@command.command()
@request_options
@yes_option
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@json_option
def up(yes: bool, dry_run: bool, as_json: bool, **asked: Any) -> None:
    """Make a cluster, or change one that is up; again, it says that it is up."""
    from hpctrain.clusters.console import ClusterConsole
    from hpctrain.clusters.make import make_cluster

    request = request_from(**asked)
    directory, made = _plan(request)
    if dry_run:
        _print_plan(made, as_json)
        return
    console = ClusterConsole(quiet=as_json)
    if not as_json:
        _print_plan(made, as_json)
    if made.question and not yes:
        click.confirm(made.question, abort=True)
    record = make_cluster(made, directory, console, Path.cwd())
    if as_json:
        click.echo((directory.path / "cluster.json").read_text(), nl=False)
    else:
        click.echo(f"up. Train on it: hpctrain run --cluster {record.name} --config demo")


@command.command()
@click.option("--name", shell_complete=complete_cluster_name, help="One cluster. Default: all.")
@json_option
def status(name: str | None, as_json: bool) -> int:
    """Show clusters and their nodes as they are now, and what crashes have left."""
    from dataclasses import asdict

    from hpctrain.clusters.overview import cluster_statuses

    found = cluster_statuses(name, os.environ)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    elif not found:
        click.echo("no cluster. Make one: hpctrain cluster up")
    for each in [] if as_json else found:
        click.echo(f"{each.name}  {each.provider}  {each.state}")
        for node in each.nodes:
            slots = f"{node.slots} slot" + ("s" if node.slots != 1 else "")
            click.echo(f"  {node.name}  {node.address}  {slots}  {node.state}  {node.detail}")
        for line in each.lines:
            click.echo(f"  {line}")
        for line in each.leftovers:
            click.echo(f"  left over: {line}")
    return 0 if all(each.state == "up" for each in found) else 1


@command.command(context_settings={"allow_interspersed_args": False})
@name_option()
@click.argument("node", required=False, shell_complete=complete_node)
@click.argument("remote_command", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, node: str | None, remote_command: tuple[str, ...]) -> None:
    """Log in to NODE, the first one by default, or run COMMAND there."""
    from hpctrain.clusters.overview import plan_ssh
    from hpctrain.executor import become

    words = remote_command[1:] if remote_command[:1] == ("--",) else remote_command
    become(plan_ssh(name, node, words, os.environ))


@command.command()
@name_option()
@json_option
def hosts(name: str, as_json: bool) -> None:
    """Print the hostfile."""
    from dataclasses import asdict

    from hpctrain.clusters.overview import read_cluster

    directory, record = read_cluster(name, os.environ, whole=True)
    if as_json:
        nodes = [asdict(node) for node in record.nodes]
        click.echo(json.dumps({"hostfile": str(directory.hostfile), "nodes": nodes}, indent=2))
    else:
        click.echo(directory.hostfile.read_text(), nl=False)


@command.command()
@name_option()
def fetch(name: str) -> None:
    """Bring back the results of runs that outlived the connection to a cluster."""
    from hpctrain.clusters.head_run import fetch_pending
    from hpctrain.clusters.overview import read_cluster

    for line in fetch_pending(*read_cluster(name, os.environ)):
        click.echo(line)


@command.command()
@name_option()
@yes_option
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option(
    "--discard-results", is_flag=True, help="Also where results of runs were not fetched."
)
@json_option
def down(name: str, yes: bool, dry_run: bool, discard_results: bool, as_json: bool) -> None:
    """Remove a cluster, or what a crash has left of it."""
    from hpctrain.clusters.console import ClusterConsole
    from hpctrain.clusters.make import plan_removal, remove_cluster

    provider, directory, made = plan_removal(name, os.environ)
    if not (discard_results or dry_run):
        from hpctrain.clusters.unfetched import refuse_unfetched

        refuse_unfetched(directory)
    if as_json:
        click.echo(json.dumps({"name": name, "removes": list(made.lines)}, indent=2))
    elif dry_run:
        click.echo("\n".join(made.lines))
    if dry_run:
        return
    if made.question and not yes:
        click.echo("\n".join(made.lines), err=True)
        click.confirm(made.question, abort=True, err=True)
    console = ClusterConsole(quiet=as_json)
    remove_cluster(provider, made, directory, console, discard_results=discard_results)
    if not as_json:
        click.echo(f"{name}: removed")


@command.command(
    epilog="""\b
Faults, any number of them:
  link-down    pull the cable
  drop         lose everything it sends and is sent, silently
  isolate      the other nodes do not hear it, this machine still does
  link-up      undo these three
  poweroff     end everything in the node at once; `up` starts it again
  slow=50mbit  another bandwidth; slow=off undoes it
  cpu=20%      a share of this machine's cores; cpu=off undoes it

\b
Examples:
  hpctrain cluster fault n2 link-down
  hpctrain cluster fault --name wide n1 slow=50mbit cpu=20%
"""
)
@name_option()
@click.argument("node", shell_complete=complete_node)
@click.argument("faults", nargs=-1, required=True, shell_complete=complete_fault)
def fault(name: str, node: str, faults: tuple[str, ...]) -> None:
    """Disturb NODE of a lab, to see what a run does."""
    from hpctrain.clusters.lab.faults import apply_faults, parse_faults
    from hpctrain.clusters.overview import read_cluster
    from hpctrain.errors import ConfigError

    wanted = parse_faults(faults)
    directory, record = read_cluster(name, os.environ, whole=True)
    if record.provider != "lab":
        raise ConfigError(
            f"--name: only a lab's nodes can be disturbed, got '{name}', which {record.provider} "
            "made; expected a lab."
        )
    with directory.locked():
        for line in apply_faults(directory, record, node, wanted, os.environ):
            click.echo(line)


def _plan(request: ClusterRequest) -> tuple[ClusterDirectory, ClusterPlan]:
    from hpctrain.clusters.make import plan_cluster

    return plan_cluster(request)


def _print_plan(made: ClusterPlan, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(made.as_json, indent=2))
        return
    for line in made.lines:
        click.echo(line)
    for warning in made.warnings:
        click.echo(f"warning: {warning}", err=True)
