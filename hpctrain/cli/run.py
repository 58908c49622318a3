"""``hpctrain run``: parse, plan, execute, print."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hpctrain.cli.launch_options import (
    config_option,
    exclude_file_option,
    host_options,
    np_option,
    oversubscribe_option,
    probe_option,
    program_argument,
    runs_dir_option,
    set_option,
    spares_option,
)
from hpctrain.cli.runs import complete_run_name


@click.command(
    # What follows the program's name is the program's, also without --.
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  hpctrain run --config demo                            train the demo on this machine
  hpctrain run --np 8 --hosts hostfile -- python train.py --batch-size 256 --lr 0.001
  hpctrain run --np 4 --cluster lab --config demo       on what `hpctrain cluster up` made
  hpctrain run -H node1:4,node2:4 --set optim.lr=3e-4 --name big
  hpctrain run --hosts hostfile --dry-run -- python train.py      what would run
  hpctrain run --hosts hostfile --preflight --exclude-file hosts-failed --config my.toml
  hpctrain run --resume --name big                      go on from its newest checkpoint
  hpctrain run --hosts hostfile --explain -- python train.py      and why
  hpctrain run --hosts hostfile --spares 1 --max-restarts 5 --name big     survive a lost host
  hpctrain run --hosts hostfile --require-transport ib --config demo   or nothing starts

\b
Exit codes: 0 done; that of the first rank that failed; 1 --preflight or hpctrain says no, or no
progress over 3 restarts; 2 usage; 75 stopped by SIGTERM or SIGUSR1, saved and resumable: requeue;
130 Ctrl-C; 128+n signal n.
""",
)
@np_option
@host_options
@exclude_file_option
@click.option(
    "--sync",
    is_flag=True,
    help="First bring what git tracks, and what the configuration names, to the hosts by rsync.",
)
@config_option
@set_option
@click.option(
    "--name",
    shell_complete=complete_run_name,
    help="The run's name. Default: the program and the time.",
)
@click.option("--resume", is_flag=True, help="Go on with the run called --name.")
@runs_dir_option
@oversubscribe_option
@click.option(
    "--save-signal",
    is_flag=True,
    help="COMMAND saves and ends by itself on SIGUSR1: send it that in place of SIGTERM.",
)
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    help="Start again after a failure, so many times at most; from the newest checkpoint.",
)
@spares_option
@click.option(
    "--min-np",
    type=click.IntRange(min=1),
    help="Fewest ranks to go on with when hosts are lost. Default: as many as at first.",
)
@click.option(
    "--preflight", is_flag=True, help="First hpctrain preflight; start nothing where it fails."
)
@click.option(
    "--require-transport",
    type=click.Choice(["ib", "efa", "tcpx", "socket", "nvlink"]),
    help="Start only if a short exchange of the same ranks really uses it.",
)
@click.option("--dry-run", is_flag=True, help="Print the exact command; touch no host.")
@click.option("--explain", is_flag=True, help="Print why each flag and variable is there.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run or --explain: as JSON.")
@probe_option
@program_argument
def command(
    np: int | None,
    hosts: Path | None,
    host_list: str | None,
    cluster: str | None,
    exclude_file: Path | None,
    sync: bool,
    config_name: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    resume: bool,
    runs_dir: Path,
    oversubscribe: bool,
    save_signal: bool,
    max_restarts: int | None,
    spares: str | None,
    min_np: int | None,
    preflight: bool,
    require_transport: str | None,
    dry_run: bool,
    explain: bool,
    as_json: bool,
    probe: bool,
    program: tuple[str, ...],
) -> int:
    """Start COMMAND on every rank under mpirun; without one, hpctrain's own trainer.

    Without --hosts, --cluster or -H the ranks run on this machine. Options of COMMAND follow
    after --.
    """
    from hpctrain.launch import show
    from hpctrain.launch.plan import plan_launch
    from hpctrain.launch.prepare import Asked, check_trainer, gather_facts, prepare_request
    from hpctrain.launch.start import start_run

    if require_transport is not None:
        overrides = (*overrides, f"launch.require_transport={require_transport}")
    asked = Asked(
        program=program,
        np=np,
        hosts_file=hosts,
        host_list=host_list,
        cluster=cluster,
        exclude_file=exclude_file,
        config_name=config_name,
        overrides=overrides,
        name=name,
        resume=resume,
        runs_dir=runs_dir,
        oversubscribe=oversubscribe,
        save_signal=save_signal,
        max_restarts=max_restarts,
        spares=spares,
        min_np=min_np,
        preflight=preflight,
    )
    if as_json and not (dry_run or explain):
        click.echo("warning: --json is ignored without --dry-run or --explain", err=True)
    if preflight and (dry_run or explain):
        click.echo("warning: --preflight is ignored with --dry-run and --explain", err=True)
    if cluster is not None:
        from hpctrain.clusters.from_outside import find_outside_cluster, start_from_outside

        if outside := find_outside_cluster(cluster, os.environ):
            return start_from_outside(outside, asked, dry_run=dry_run or explain)
    prepared = prepare_request(asked, os.environ)
    if sync and not (dry_run or explain):
        from hpctrain.clusters.from_outside import sync_hosts

        sync_hosts(asked, prepared)
    if preflight and not (dry_run or explain):
        from hpctrain.preflight.before_run import run_before

        if not run_before(asked, os.environ):
            return 1
    facts = gather_facts(prepared, os.environ, probe=probe)
    if prepared.is_trainer:
        check_trainer(prepared.config, facts)
    plan = plan_launch(prepared.request, facts)
    if dry_run or explain:
        click.echo(show.render_json(plan) if as_json else "", nl=as_json)
        if not as_json:
            show.print_plan(plan, prepared.warnings, dry_run=dry_run, explain=explain)
        return 0
    expected = prepared.config.launch.require_transport
    if expected != "none":
        from hpctrain.bench.transport.prove import prove_transport

        prove_transport(expected, prepared, plan, lambda line: click.echo(line, err=True))
    return start_run(plan, prepared, facts)
