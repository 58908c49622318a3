"""``hpctrain preflight``: ask the machine, judge, print."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

import click

_COLORS = {"PASS": "green", "WARN": "yellow", "FAIL": "red", "SKIP": None}


@click.command(
    epilog="""\b
Examples:
  hpctrain preflight
  hpctrain preflight --json | jq '.[] | select(.status == "FAIL")'

\b
Exit codes: 0 nothing failed; 1 a check failed.
"""
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> int:
    """Check what is installed on this machine: which MPI, which Horovod, and what to fix."""
    from hpctrain.executor import LocalExecutor
    from hpctrain.preflight.checks import CHECKS
    from hpctrain.preflight.machine import probe_machine
    from hpctrain.preflight.verdict import FAIL

    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("asking this machine (importing torch takes a moment)"):
            machine = probe_machine(os.environ, LocalExecutor())
    else:
        machine = probe_machine(os.environ, LocalExecutor())
    verdicts = [check(machine) for check in CHECKS]
    if as_json:
        click.echo(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    else:
        for verdict in verdicts:
            mark = click.style(f"{verdict.status}", fg=_COLORS[verdict.status], bold=True)
            fix = f" → {verdict.fix}" if verdict.fix and verdict.status != "PASS" else ""
            click.echo(f"{mark}  {verdict.code:12} {verdict.found}{fix}")
    return 1 if any(verdict.status == FAIL for verdict in verdicts) else 0
