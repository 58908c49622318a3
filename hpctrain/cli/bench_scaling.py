"""``hpctrain bench scaling``: parse, plan, measure, print."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import click
from click.shell_completion import CompletionItem

from hpctrain.cli.launch_options import (
    config_option,
    finite,
    host_options,
    oversubscribe_option,
    probe_option,
    program_argument,
    set_option,
    usd_per_hour_option,
)


def _complete_precision(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from hpctrain.config.load import choices_of

    before, comma, word = incomplete.rpartition(",")
    known = [name for name in choices_of("train.precision") if name.startswith(word)]
    return [CompletionItem(f"{before}{comma}{name}") for name in known]


def _complete_bench(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    found = sorted(Path("benches").glob(f"{incomplete}*/bench.json"))
    return [CompletionItem(path.parent.name) for path in found]


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  hpctrain bench --np 1,2,4                                 how the trainer scales here
  hpctrain bench --np 2,4,8 --hosts hostfile --mode both    over several nodes
  hpctrain bench --np 1,8 --config my.toml --precision fp32,bf16
  hpctrain bench --np 1,2,4 --out benches/first             again: goes on where it stopped
  hpctrain bench --np 1,2 --dry-run                         what would be measured
  hpctrain bench --np 1,2 --metric 'throughput: ([\\d.]+)' -- python train.py

\b
Exit codes: 0 done; 1 a trial failed, or a result is implausible; 2 usage; 130 Ctrl-C.
""",
)
@click.option(
    "--np",
    "-np",
    "-n",
    "sizes",
    metavar="LIST",
    help="Ranks: 1,2,4. Default: 1, 2, 4 … up to all slots.",
)
@host_options
@click.option(
    "--mode",
    type=click.Choice(["weak", "strong", "both"]),
    help="Keep the batch of each rank (weak), or that of all together. Default: weak.",
)
@click.option(
    "--precision",
    "precisions",
    metavar="LIST",
    shell_complete=_complete_precision,
    help="Precisions to measure side by side: fp32,bf16.",
)
@config_option
@set_option
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Trials of each case, interleaved.",
)
@click.option(
    "--warmup-steps",
    type=click.IntRange(min=0),
    help="First steps of a trial that do not count. Default: 5; 0 rates with --metric.",
)
@click.option(
    "--steps",
    "timed_steps",
    type=click.IntRange(min=1),
    help="Steps of a trial that count. Default: 20.",
)
@click.option(
    "--name",
    shell_complete=_complete_bench,
    help="The folder below benches/. Default: what runs, and the time.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder; one that was begun goes on.",
)
@click.option(
    "--remeasure",
    metavar="NAMES",
    help="With --out: trials that count no more and are run again, as their runs, or their "
    "cases, are named: weak-fp32-np2-1node-3.",
)
@oversubscribe_option
@click.option(
    "--metric",
    metavar="REGEX",
    help="What finds a rate of all ranks together (higher is better) in COMMAND's output, in one "
    "group.",
)
@usd_per_hour_option
@click.option(
    "--allreduce/--no-allreduce",
    default=True,
    help="Measure all-reduce on each placement as well.",
    show_default=True,
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1),
    callback=finite,
    default=1800.0,
    show_default=True,
    help="A trial that takes longer is an error (s).",
)
@probe_option
@click.option("--dry-run", is_flag=True, help="Print the cases and commands; start nothing.")
@click.option(
    "--json", "as_json", is_flag=True, help="The report, or the plan with --dry-run, as JSON."
)
@program_argument
def command(*, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Measure how a training scales: the trainer, or COMMAND, at each size, and a report.

    COMMAND reports steps by hpctrain.events.report_step, or prints a rate that --metric finds.
    """
    from hpctrain.bench.scaling.request import prepare_bench

    bench = prepare_bench(_asked(**given), os.environ)
    if dry_run:
        from hpctrain.bench.scaling.show import render_plan, render_plan_json

        click.echo(render_plan_json(bench) if as_json else render_plan(bench))
        for warning in bench.warnings:
            click.echo(click.style("warning: ", fg="yellow", bold=True) + warning, err=True)
        return
    from hpctrain.bench.scaling.measure import run_bench
    from hpctrain.bench.scaling.progress import BenchConsole
    from hpctrain.bench.scaling.show import render_go_on
    from hpctrain.errors import BenchError, PlanError, raise_all

    signal.signal(signal.SIGTERM, _leave)
    console = BenchConsole()
    try:
        problems = run_bench(bench, console)
    except BaseException as end:
        if not isinstance(end, PlanError) and (bench.folder / "bench.json").exists():
            console.say(f"what was measured is in {bench.folder}. {render_go_on(bench)}")
        raise
    try:
        _report(bench.folder, as_json=as_json)
    except BenchError as refused:
        if "--remeasure" not in str(refused):
            console.say(
                f"to measure trials again: {render_go_on(bench).removeprefix('Go on: ')} "
                "--remeasure NAME,NAME…, as their runs or cases are named"
            )
        raise
    raise_all(BenchError, problems)


def _leave(number: int, frame: FrameType | None) -> None:
    """Leave in order, so that the trial that runs is stopped."""
    raise SystemExit(128 + number)


def _asked(
    *, sizes: str | None, precisions: str | None, hosts: Path | None, host_list: str | None,
    cluster: str | None, config_name: str | None, overrides: tuple[str, ...],
    remeasure: str | None,
    oversubscribe: bool, program: tuple[str, ...], allreduce: bool, **rest: Any,
) -> Any:  # fmt: skip
    from hpctrain.bench.scaling.asked import BenchAsked, parse_sizes
    from hpctrain.launch.prepare import Asked

    run = Asked(
        program=program, hosts_file=hosts, host_list=host_list, cluster=cluster,
        config_name=config_name, overrides=overrides, oversubscribe=oversubscribe,
    )  # fmt: skip
    words = [word.strip() for word in (precisions or "").split(",") if word.strip()]
    return BenchAsked(
        run=run, sizes=parse_sizes(sizes) if sizes is not None else None,
        precisions=tuple(dict.fromkeys(words)), allreduce=allreduce,
        remeasure=tuple(dict.fromkeys((remeasure or "").replace(",", " ").split())), **rest,
    )  # fmt: skip


def _report(folder: Path, *, as_json: bool) -> None:
    from hpctrain.bench.report import print_summary, write_report
    from hpctrain.bench.report.write import report_files

    report = write_report(folder)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
        return
    print_summary(report)
    click.echo()
    for path in report_files(folder):
        click.echo(f"wrote {path}")
