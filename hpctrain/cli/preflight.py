"""``hpctrain preflight``: ask the hosts, judge, print."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

import click
from click.shell_completion import CompletionItem

from hpctrain.cli.launch_options import (
    config_option,
    exclude_file_option,
    host_options,
    json_option,
    np_option,
    oversubscribe_option,
    program_argument,
    runs_dir_option,
    set_option,
    spares_option,
    usd_per_hour_option,
)


def complete_codes(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the checks' codes."""
    from hpctrain.preflight.checks import CHECKS

    return [CompletionItem(c.code) for c in CHECKS if c.code.startswith(incomplete)]


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  hpctrain preflight                                        what is installed on this machine
  hpctrain preflight --hosts hostfile --config my.toml      all hosts, for this training
  hpctrain preflight --hosts hostfile -- python train.py    and for a program of your own
  hpctrain preflight --hosts hostfile --level full          with GPUs, network and disks at work
  hpctrain preflight --hosts hostfile --level full --dry-run     which checks would run where
  hpctrain preflight --hosts hostfile --config my.toml --only pairs --only rehearsal
  hpctrain preflight --hosts hostfile --out checked              then, without those that failed:
  hpctrain run --hosts hostfile --exclude-file checked/hosts-failed --config my.toml
  hpctrain preflight --json | jq '.[] | select(.status == "FAIL")'

\b
Exit codes: 0 nothing failed; 1 a check failed; 2 usage; 130 Ctrl-C, 143 SIGTERM.
""",
)
@np_option
@host_options
@exclude_file_option
@config_option
@set_option
@oversubscribe_option
@spares_option
@runs_dir_option
@click.option(
    "--level",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="full: also load GPUs, memory, network and disks, and rehearse the training.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="CODE",
    shell_complete=complete_codes,
    help="Only this check, of either level. Repeatable.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write hosts-passed and hosts-failed there; run --exclude-file takes the latter. "
    "Default: below --runs-dir, where some hosts have failed.",
)
@usd_per_hour_option
@click.option("--dry-run", is_flag=True, help="Print which checks would run where; ask no host.")
@json_option
@program_argument
def command(
    np: int | None,
    hosts: Path | None,
    host_list: str | None,
    cluster: str | None,
    exclude_file: Path | None,
    config_name: str | None,
    overrides: tuple[str, ...],
    oversubscribe: bool,
    spares: str | None,
    runs_dir: Path,
    level: str,
    only: tuple[str, ...],
    out: Path | None,
    usd_per_hour: float | None,
    dry_run: bool,
    as_json: bool,
    program: tuple[str, ...],
) -> int:
    """Find what would stop a run, on every host at once, before it is started.

    Without --hosts, --cluster or -H it looks at this machine. With --config, --set or COMMAND it
    also looks at what that training needs.
    """
    from hpctrain.launch.prepare import Asked
    from hpctrain.preflight.check import FULL
    from hpctrain.preflight.price import with_cost
    from hpctrain.preflight.request import prepare_preflight
    from hpctrain.preflight.run import (
        choose_checks,
        find_wrong_already,
        run_checks,
        split_hosts,
    )
    from hpctrain.preflight.show import (
        asking,
        keep_hosts,
        print_verdicts,
        render_json,
        write_hosts,
    )
    from hpctrain.preflight.verdict import FAIL

    asked = Asked(
        program=program,
        np=np,
        hosts_file=hosts,
        host_list=host_list,
        cluster=cluster,
        exclude_file=exclude_file,
        config_name=config_name,
        overrides=overrides,
        oversubscribe=oversubscribe,
        runs_dir=runs_dir,
        spares=spares,
        # Whether the run will be started again is not asked here: no warning of idle spares.
        max_restarts=None if spares is None else 1,
    )
    about_a_run = bool(program or config_name or overrides)
    request = prepare_preflight(asked, os.environ, about_a_run=about_a_run)
    checks = choose_checks(level, only, hosts=request.machines)
    if dry_run:
        from hpctrain.preflight.show_plan import render_plan, render_plan_json

        click.echo((render_plan_json if as_json else render_plan)(request, checks))
        if wrong := find_wrong_already(request):
            print_verdicts(wrong, hosts=len(request.tasks), err=True)
        return 0
    with asking(len(request.tasks)) as on_answer:
        fleet, verdicts = run_checks(request, checks, on_answer)
    full = [check for check in checks if check.level == FULL]
    if full:
        from hpctrain.bench.scaling.progress import BenchConsole
        from hpctrain.preflight.full.run import run_full
        from hpctrain.preflight.verdict import merge

        signal.signal(signal.SIGTERM, _leave)
        failed = [verdict for verdict in verdicts if verdict.status == FAIL]
        fleet, more = run_full(request, fleet, full, BenchConsole(), failed=failed)
        verdicts = merge([*verdicts, *more])
    verdicts = with_cost(fleet, verdicts, cluster, usd_per_hour, os.environ)
    if as_json:
        click.echo(render_json(verdicts))
    else:
        print_verdicts(verdicts, hosts=len(fleet.hosts))
    if out is not None:
        write_hosts(out, *split_hosts(fleet, verdicts))
    elif request.prepared is not None:
        keep_hosts(request.prepared.run_path, *split_hosts(fleet, verdicts), exclude_file)
    return 1 if any(verdict.status == FAIL for verdict in verdicts) else 0


def _leave(number: int, frame: FrameType | None) -> None:
    """Leave in order, so that ranks are stopped and files removed."""
    raise SystemExit(128 + number)
