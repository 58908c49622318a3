"""Show verdicts: a checklist for people, JSON for programs, host lists for the next run."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from hpctrain.launch.exclude import parse_excluded
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

_COLORS = {"PASS": "green", "WARN": "yellow", "FAIL": "red", "SKIP": None}
PASSED_FILE, FAILED_FILE = "hosts-passed", "hosts-failed"
KEPT_IN = ".preflight"  # no run can be called that
SHOWN_HOSTS = 4


def render_json(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as JSON."""
    return json.dumps([asdict(verdict) for verdict in verdicts], indent=2)


def print_verdicts(verdicts: Sequence[Verdict], *, hosts: int, err: bool = False) -> None:
    """Print a line a verdict, its fix where something is to be done, and how many there were.

    Args:
        hosts: how many hosts there are; with one, its name is left out.
        err: whether to print to stderr.
    """
    width = max((len(verdict.code) for verdict in verdicts), default=0)
    for verdict in verdicts:
        mark = click.style(verdict.status, fg=_COLORS[verdict.status], bold=True)
        where = f"{name_hosts(verdict.hosts, hosts)}: " if hosts > 1 and verdict.hosts else ""
        expected = f"; expected {verdict.expected}" if verdict.expected else ""
        fix = f" → {verdict.fix}" if verdict.fix and verdict.status != PASS else ""
        click.echo(
            f"{mark}  {verdict.code:{width}}  {where}{verdict.found}{expected}{fix}", err=err
        )
    click.echo(render_summary(verdicts, hosts=hosts), err=err)


def render_summary(verdicts: Sequence[Verdict], *, hosts: int) -> str:
    """Return how many lines say what, and on which hosts something failed.

    >>> bad = Verdict("reach", FAIL, "no route", hosts=("n3",))
    >>> render_summary([Verdict("python", PASS, "3.11"), Verdict("apex", SKIP, "-"), bad], hosts=4)
    '1 passed, 1 failed on n3, 1 skipped'
    >>> render_summary([Verdict("python", PASS, "3.11")], hosts=1)
    '1 passed'
    """
    count = Counter(verdict.status for verdict in verdicts)
    failed = tuple(dict.fromkeys(h for v in verdicts if v.status == FAIL for h in v.hosts))
    where = f" on {name_hosts(failed, hosts)}" if failed and hosts > 1 else ""
    parts = {
        PASS: f"{count[PASS]} passed",
        WARN: f"{count[WARN]} warning{'s' if count[WARN] > 1 else ''}",
        FAIL: f"{count[FAIL]} failed{where}",
        SKIP: f"{count[SKIP]} skipped",
    }
    return ", ".join(words for status, words in parts.items() if count[status]) or "no checks"


def name_hosts(names: Sequence[str], all_hosts: int) -> str:
    """Return hosts in few words.

    >>> name_hosts(["n1", "n2"], 2), name_hosts(["n1"], 2)
    ('all 2 hosts', 'n1')
    >>> name_hosts(["a", "b", "c", "d", "e"], 9)
    'a, b, c, d and 1 more'
    """
    if len(names) == all_hosts and all_hosts > 1:
        return f"all {all_hosts} hosts"
    shown = ", ".join(names[:SHOWN_HOSTS])
    rest = len(names) - SHOWN_HOSTS
    return f"{shown} and {rest} more" if rest > 0 else shown


def write_hosts(folder: Path, passed: Sequence[str], failed: Sequence[str]) -> None:
    """Write the hosts that passed, and those that failed, a name a line.

    Raises:
        OSError: they cannot be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, hosts in ((PASSED_FILE, passed), (FAILED_FILE, failed)):
        (folder / name).write_text("".join(f"{host}\n" for host in hosts), encoding="utf-8")
    click.echo(f"{folder / PASSED_FILE} ({len(passed)}), {folder / FAILED_FILE} ({len(failed)})",
               err=True)  # fmt: skip


def keep_hosts(
    run_path: Path, passed: Sequence[str], failed: Sequence[str], left_out: Path | None = None
) -> Path | None:
    """Write them beside a run's folder, so that the name stays free for the run.

    Args:
        left_out: the file whose hosts are left out already; they stay so.

    Returns:
        The file to start without the hosts that failed; None where it would be of no use (none
        has failed, or all have), or cannot be written.
    """
    if not (passed and failed):
        return None
    folder = run_path.parent / KEPT_IN / run_path.name
    try:
        earlier = parse_excluded(left_out.read_text("utf-8"), str(left_out)) if left_out else ()
        write_hosts(folder, passed, list(dict.fromkeys([*failed, *earlier])))
    except OSError as problem:
        click.echo(f"{folder}: cannot be written: {problem.strerror}", err=True)
        return None
    return folder / FAILED_FILE


@contextmanager
def asking(hosts: int) -> Iterator[Callable[[str], None]]:
    """Show how many hosts have answered, where somebody watches."""
    if not sys.stderr.isatty():
        yield lambda host: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("asking (importing torch takes a moment)"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=hosts)
        yield lambda host: progress.advance(bar)
