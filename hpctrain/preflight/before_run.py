"""The quick level before a run: it starts only where nothing fails."""

from __future__ import annotations

from collections.abc import Mapping

import click

from hpctrain.launch.prepare import Asked
from hpctrain.preflight.check import QUICK
from hpctrain.preflight.price import with_cost
from hpctrain.preflight.request import prepare_preflight
from hpctrain.preflight.run import choose_checks, run_checks, split_hosts
from hpctrain.preflight.show import asking, keep_hosts, print_verdicts, render_summary
from hpctrain.preflight.verdict import FAIL, WARN


def run_before(asked: Asked, environ: Mapping[str, str]) -> bool:
    """Return whether the run may start; print the checklist where it may not.

    All of it goes to stderr: stdout is the run's. Where nothing failed, the warnings alone are
    printed, and how many checks there were.

    Raises:
        HostfileError, PlanError: there is no telling which hosts are meant.
    """
    request = prepare_preflight(asked, environ, about_a_run=True)
    hosts = len(request.tasks)
    with asking(hosts) as on_answer:
        fleet, verdicts = run_checks(
            request, choose_checks(QUICK, hosts=request.machines), on_answer
        )
    spares = {host for host, task in fleet.tasks.items() if task.is_spare}
    failed = [verdict for verdict in verdicts if verdict.status == FAIL]
    # The run can begin without a spare that is broken.
    if any(not verdict.hosts or set(verdict.hosts) - spares for verdict in failed):
        told = with_cost(fleet, verdicts, asked.cluster, None, environ)
        print_verdicts(told, hosts=hosts, err=True)
        file = None
        if request.prepared is not None:
            hosts_of = split_hosts(fleet, verdicts)
            file = keep_hosts(request.prepared.run_path, *hosts_of, asked.exclude_file)
        way_out = f" Without the hosts that failed: --exclude-file {file}" if file else ""
        click.echo(f"nothing was started.{way_out}", err=True)
        return False
    summary = render_summary(verdicts, hosts=hosts)
    for verdict in verdicts:
        if verdict.status in (WARN, FAIL):
            where = "spare " + ", ".join(verdict.hosts) + ": " if verdict.status == FAIL else ""
            fix = f" → {verdict.fix}" if verdict.fix else ""
            said = f"{verdict.status} {verdict.code}: {where}{verdict.found}{fix}"
            click.echo(f"preflight: {said}", err=True)
    click.echo(f"preflight: {summary}", err=True)
    return True
