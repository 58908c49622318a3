"""Show a plan: the command to copy, and a table of reasons."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Sequence

import click

from hpctrain.executor import Command, render_command
from hpctrain.launch.plan import LaunchPlan, Reason
from hpctrain.launch.plan_files import plan_as_json

WIDE_COLUMNS = 150


def render_script(plan: LaunchPlan) -> str:
    """Return what ``--dry-run`` prints: files first, then the command, for a POSIX shell.

    Ranks started by hand like this report to nobody: mpirun's own output is all there is.
    """
    lines = []
    if plan.files:
        folders = sorted({path.rpartition("/")[0] for path in plan.files})
        lines.append(shlex.join(["mkdir", "-p", *folders]))
    for path, text in plan.files.items():
        lines.append(f"cat > {shlex.quote(path)} <<'EOF'\n{text}EOF")
    lines.append(_render_wrapped(plan))
    return "\n".join(lines) + "\n"


def render_json(plan: LaunchPlan) -> str:
    """Return the plan as JSON."""
    return json.dumps(plan_as_json(plan), indent=2)


def print_plan(plan: LaunchPlan, warnings: Sequence[str], *, dry_run: bool, explain: bool) -> None:
    """Print the command, the reasons, or both; warnings on standard error."""
    if dry_run:
        click.echo(render_script(plan), nl=False)
    if explain:
        _print_reasons(plan)
    for warning in (*warnings, *plan.warnings):
        click.echo(click.style("warning: ", fg="yellow", bold=True) + warning, err=True)


def _render_wrapped(plan: LaunchPlan) -> str:
    """Break the line before each flag of mpirun, so that it can be read."""
    command = plan.command
    before = Command(command.argv[: len(command.argv) - plan.shim_words], command.env)
    parts: list[list[str]] = [[]]
    for word in shlex.split(render_command(before)):
        if parts[-1] and word.startswith("-"):
            parts.append([])
        parts[-1].append(word)
    parts.append(list(command.argv[len(command.argv) - plan.shim_words :]))
    return " \\\n  ".join(shlex.join(part) for part in parts)


def _print_reasons(plan: LaunchPlan) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    title = f"{plan.np} rank{'s' if plan.np > 1 else ''} with {plan.mpi}"
    table = Table(title=title, title_justify="left", show_lines=True)
    rows = _grouped(plan.reasons)
    if console.width >= WIDE_COLUMNS:
        for heading in ("flag or variable", "value", "rule", "fact", "source"):
            table.add_column(heading, overflow="fold")
        for settings, values, reason in rows:
            table.add_row(settings, values, reason.rule, reason.fact, reason.source)
    else:  # five columns would be unreadable: the same five, in two
        table.add_column("flag or variable, value", overflow="fold", ratio=2)
        table.add_column("rule, fact, source", overflow="fold", ratio=3)
        for settings, values, reason in rows:
            pairs = zip(settings.split("\n"), values.split("\n"), strict=True)
            setting = "\n".join(" ".join(pair).strip() for pair in pairs)
            table.add_row(setting, f"{reason.rule}\nfact: {reason.fact}\nsource: {reason.source}")
    console.print(table)


def _grouped(reasons: Sequence[Reason]) -> list[tuple[str, str, Reason]]:
    """Return (settings, values, reason), one a reason: neighbours that share one share a row."""
    rows = []
    for _, same in itertools.groupby(reasons, key=lambda r: (r.rule, r.fact, r.source)):
        group = list(same)
        settings = "\n".join(reason.setting for reason in group)
        rows.append((settings, "\n".join(reason.value for reason in group), group[0]))
    return rows
