"""``hpctrain bench compare``: is one measurement faster or slower than another?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from hpctrain.cli.launch_options import json_option

if TYPE_CHECKING:
    from hpctrain.bench.report.compare import Comparison


def complete_bench_folder(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    found = sorted(Path("benches").glob("*/bench.json"))
    names = [str(path.parent) for path in found if str(path.parent).startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="dir")]


bench_folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(
    epilog="""\b
Examples:
  hpctrain bench compare benches/before benches/after
  hpctrain bench compare benches/main benches/branch --fail-below 0.95     in CI
  hpctrain bench compare benches/cpu-a benches/cpu-b --anyway --json

\b
Exit codes: 0 done; 1 the two cannot be compared, or with --fail-below: a case is certainly below
it, or cannot be judged (not measured in B, unfinished, under three repeats); 2 usage.
"""
)
@click.argument("a", metavar="A", type=bench_folder, shell_complete=complete_bench_folder)
@click.argument("b", metavar="B", type=bench_folder, shell_complete=complete_bench_folder)
@click.option(
    "--fail-below",
    metavar="RATIO",
    type=click.FloatRange(min=0, min_open=True),
    help="Exit with 1 if a case of B has certainly less than this part of A's rate, or cannot be "
    "judged: not measured in B, unfinished, or under three repeats.",
)
@click.option(
    "--anyway",
    is_flag=True,
    help="Compare also what was measured on other hardware, or with another model or settings.",
)
@json_option
def command(a: Path, b: Path, fail_below: float | None, anyway: bool, as_json: bool) -> int:
    """Compare measurement B with A, case by case, against what their repeats differ by.

    A and B are folders that `hpctrain bench` wrote. A ratio above 1 means that B is faster.
    """
    from hpctrain.bench.report import read_report
    from hpctrain.bench.report.compare import compare_reports
    from hpctrain.errors import EXIT_FAILED

    comparison = compare_reports(read_report(a), read_report(b), fail_below, anyway=anyway)
    if as_json:
        click.echo(json.dumps(comparison.as_json(), indent=2))
    else:
        _print_comparison(comparison, a, b)
    return 0 if comparison.is_passed else EXIT_FAILED


def _print_comparison(comparison: Comparison, a: Path, b: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from hpctrain.bench.report.words import say_number

    table = Table(title=f"{b} over {a}", title_justify="left", box=None, pad_edge=False)
    table.add_column("case", no_wrap=True)
    for heading in ("A", "B", "ratio", "interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for case in comparison.cases:
        interval = "-"
        if case.ratio.low is not None:
            interval = f"{case.ratio.low:.3f} to {case.ratio.high:.3f}"
        below = f", below {comparison.fail_below:g}" if case.is_below else ""
        table.add_row(
            case.key, say_number(case.rate_a), say_number(case.rate_b), f"{case.ratio.ratio:.3f}",
            interval, f"{case.verdict}{below}",
        )  # fmt: skip
    # The names of cases must stay whole: they say what was measured.
    needed = Console(width=1000).measure(table).maximum
    console = Console(highlight=False, markup=False)
    Console(highlight=False, markup=False, width=max(console.width, needed)).print(table)
    for title, words in (("only in A", comparison.only_a), ("only in B", comparison.only_b)):
        if words:
            click.echo(f"{title}: {', '.join(words)}")
    if comparison.changed:
        click.echo(f"changed: {'; '.join(comparison.changed)}")
    for difference in comparison.differences:
        warning = f"not alike, compared --anyway: {difference}"
        click.echo(click.style("warning: ", fg="yellow", bold=True) + warning, err=True)
    gated = " (fails: --fail-below judges every case)" if comparison.fail_below else ""
    if comparison.unjudged:
        warning = f"not judged: {'; '.join(comparison.unjudged)}{gated}"
        click.echo(click.style("warning: ", fg="yellow", bold=True) + warning, err=True)
