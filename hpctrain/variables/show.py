"""Show variables: a table for each group of hosts that have the same, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from hpctrain.variables.explain import Variable
from hpctrain.variables.findings import Finding
from hpctrain.variables.gather import HostExplained

COLOURS = {"unknown": "yellow", "conflict": "red", "cloud": "red", "care": "yellow"}
WIDE_COLUMNS = 150


def print_explained(
    hosts: Sequence[HostExplained], differences: Sequence[Finding], warnings: Sequence[str]
) -> None:
    """Print all of it; warnings and findings on standard error."""
    for group in group_alike(hosts):
        _print_group(group)
    for each in hosts:
        for finding in each.findings:
            _tell(finding, each.host)
    for finding in differences:
        _tell(finding, "")
    unknown = tuple(f"{f.name}: " for each in hosts for f in each.findings if f.kind == "unknown")
    for warning in warnings:
        if unknown and warning.startswith(unknown):
            continue  # said already
        click.echo(click.style("warning: ", fg="yellow", bold=True) + warning, err=True)


def as_json(hosts: Sequence[HostExplained], differences: Sequence[Finding]) -> dict[str, Any]:
    """Return all of it as JSON-ready values."""
    return {
        "schema": 1,
        "hosts": {
            each.host: {
                "variables": [asdict(variable) for variable in each.variables],
                "findings": [asdict(finding) for finding in each.findings],
            }
            for each in hosts
        },
        "differences": [asdict(finding) for finding in differences],
    }


def group_alike(hosts: Sequence[HostExplained]) -> list[list[HostExplained]]:
    """Return hosts in groups whose variables are the same, origin and all."""
    groups: dict[tuple[Variable, ...], list[HostExplained]] = {}
    for each in hosts:
        groups.setdefault(each.variables, []).append(each)
    return list(groups.values())


def _print_group(group: Sequence[HostExplained]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    names = ", ".join(each.host for each in group[:4]) + (" …" if len(group) > 4 else "")
    variables = group[0].variables
    if not variables:
        console.print(f"{names}: no variable is set that NCCL, MPI, UCX, FI or Horovod reads")
        return
    title = f"{names}: {len(variables)} variable{'s' if len(variables) > 1 else ''}"
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("variable, value", overflow="fold", ratio=2)
    table.add_column("set by, why, source", overflow="fold", ratio=3)
    for variable in variables:
        name = (
            f"{variable.flag} {variable.value}"
            if variable.flag
            else (f"{variable.name}={variable.value}")
        )
        table.add_row(name, _describe(variable))
    console.print(table)


def _describe(variable: Variable) -> str:
    lines = [variable.origin]
    lines += [variable.rule] if variable.rule else []
    lines += [f"source: {variable.source}"] if variable.source else []
    lines += [f"hides {hidden}" for hidden in variable.hides]
    return "\n".join(lines)


def _tell(finding: Finding, host: str) -> None:
    where = f"{host}: " if host else ""
    label = click.style(f"{finding.kind}: ", fg=COLOURS[finding.kind], bold=True)
    click.echo(f"{label}{where}{finding.name}: {finding.text}", err=True)
