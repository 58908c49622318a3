"""``hpctrain runs``: what is in the run directories."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from hpctrain.cli.launch_options import json_option, runs_dir_option

if TYPE_CHECKING:
    from hpctrain.rundir import RunSummary


def complete_run_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    folder = Path(ctx.params.get("runs_dir") or "runs")
    return [CompletionItem(p.name) for p in sorted(folder.glob(f"{incomplete}*")) if p.is_dir()]


@click.group(
    epilog="""\b
Examples:
  hpctrain runs list
  hpctrain runs show demo
  hpctrain runs remove demo old-one
"""
)
def command() -> None:
    """List, show and remove runs."""


@command.command("list")
@runs_dir_option
@json_option
def list_command(runs_dir: Path, as_json: bool) -> None:
    """List all runs, the newest last."""
    from hpctrain.rundir import list_runs

    runs = list_runs(runs_dir)
    if as_json:
        click.echo(json.dumps([asdict(run) for run in runs], indent=2))
    elif not runs:
        click.echo(f"no runs in {runs_dir}")
    else:
        _print_table(runs)


@command.command()
@click.argument("name", shell_complete=complete_run_name)
@runs_dir_option
@json_option
def show(name: str, runs_dir: Path, as_json: bool) -> None:
    """Show one run: its state, its last figures, where its time went and its files are."""
    from hpctrain.goodput import read_goodput
    from hpctrain.rundir import find_run, summarize_run

    path = find_run(runs_dir, name)
    run, goodput = summarize_run(path), read_goodput(path)
    if as_json:
        figures = None if goodput is None else {**asdict(goodput), "share": goodput.share}
        click.echo(json.dumps({**asdict(run), "goodput": figures}, indent=2))
        return
    rows = [
        ("state", _state(run)),
        *([("failed first", run.failure)] if run.failure else []),
        ("command", run.command or "?"),
        ("ranks", f"{run.np} on {', '.join(run.hosts)}"),
        ("started", _when(run.started_at_s)),
        ("took", _seconds(run.duration_s)),
        ("attempts", str(run.attempts)),
        *([("goodput", goodput.in_words().removeprefix("goodput "))] if goodput else []),
        ("step", _step(run)),
        ("loss", _figure(run.loss)),
        ("validation loss", _figure(run.val_loss)),
        ("tokens/s", _figure(run.tokens_per_s)),
        ("configuration", str(path / "run.toml")),
        ("plan", str(path / "plan.json")),
        ("logs", str(path / "logs")),
    ]
    for title, value in rows:
        click.echo(f"{title:16} {value}")


@command.command()
@click.argument("names", nargs=-1, required=True, shell_complete=complete_run_name)
@runs_dir_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(names: tuple[str, ...], runs_dir: Path, yes: bool) -> None:
    """Remove runs with all their files."""
    from hpctrain.errors import HpctrainError, RunDirectoryError, raise_all
    from hpctrain.rundir import check_removable, find_run, remove_run

    problems: list[str] = []
    for name in names:
        try:
            check_removable(find_run(runs_dir, name))
        except HpctrainError as problem:
            problems += problem.messages
    raise_all(RunDirectoryError, problems)  # all or nothing
    if not yes:
        click.confirm(f"Remove {', '.join(names)} from {runs_dir}?", abort=True)
    for name in names:
        remove_run(runs_dir / name)


def _print_table(runs: list[RunSummary]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "state", "ranks", "step", "loss", "tokens/s", "took", "started"):
        is_number = heading in ("step", "loss", "tokens/s")
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    for run in runs:
        table.add_row(
            run.name, _state(run), str(run.np or "?"), _step(run), _figure(run.loss),
            _figure(run.tokens_per_s), _seconds(run.duration_s), _when(run.started_at_s),
        )  # fmt: skip
    # Names must stay whole: they are what the other commands take.
    needed = Console(width=1000).measure(table).maximum
    console = Console(highlight=False, markup=False)
    Console(highlight=False, markup=False, width=max(console.width, needed)).print(table)


def _state(run: RunSummary) -> str:
    failed = run.state == "failed" and run.exit_code is not None
    return f"{run.state} ({run.exit_code})" if failed else run.state


def _step(run: RunSummary) -> str:
    if run.step is None:
        return "-"
    return f"{run.step}/{run.steps}" if run.steps else str(run.step)


def _figure(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return "-" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} s"


def _when(value: float | None) -> str:
    if value is None:
        return "-"
    when = time.localtime(value)
    today = time.strftime("%Y-%m-%d", when) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d", when)
