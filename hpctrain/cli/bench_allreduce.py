"""``hpctrain bench allreduce``: parse, plan, run, print."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from hpctrain.cli.launch_options import (
    host_options,
    np_option,
    oversubscribe_option,
    runs_dir_option,
    set_option_of,
)

PLAIN_INTERVAL_S = 5.0


def _complete_backends(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from hpctrain.bench.allreduce.sizes import BACKENDS

    given, comma, last = incomplete.rpartition(",")
    taken = given.split(",")
    words = [name for name in BACKENDS if name.startswith(last) and name not in taken]
    return [CompletionItem(f"{given}{comma}{name}") for name in words]


@click.command(
    epilog="""\b
Examples:
  hpctrain bench allreduce --np 2                      this machine, 4 bytes to 256 MB
  hpctrain bench allreduce --hosts hostfile --out network.json
  hpctrain bench allreduce --cluster lab --np 4 --sizes 4,64k,1M,16M --budget 20
  hpctrain bench allreduce --np 2 --backends buckets,horovod --sizes 25M,118M
  hpctrain bench allreduce -H node1:4,node2:4 --dry-run

\b
Exit codes: 0 done; 1 an element was wrong, or a launch failed; 2 usage; 130 Ctrl-C.
"""
)
@np_option
@host_options
@click.option(
    "--sizes",
    metavar="LIST",
    help="Message sizes in bytes, with k, M or G. Default: 4 to 256M in powers of 4.",
)
@click.option(
    "--backends",
    default="horovod,mpi4py,torch",
    show_default=True,
    metavar="LIST",
    shell_complete=_complete_backends,
    help="Of horovod, mpi4py, torch, and buckets: what hpctrain's trainer does.",
)
@click.option(
    "--repeats", type=int, default=100, show_default=True,
    help="Timings of a size and backend at most; large messages get fewer.",
)  # fmt: skip
@click.option(
    "--budget", "budget_s", type=float, default=60.0, show_default=True, metavar="SECONDS",
    help="Measure about so long; what does not fit is left out and named.",
)  # fmt: skip
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where horovod's and torch's messages lie; mpi4py's are always on the host.",
)
@set_option_of("A setting of the launch, e.g. launch.subnet=10.0.0.0/24.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep all values here, as JSON.")
@click.option("--name", help="The run's name. Default: allreduce and the time.")
@runs_dir_option
@oversubscribe_option
@click.option("--dry-run", is_flag=True, help="Print what would run; touch no host.")
@click.option("--json", "as_json", is_flag=True, help="Print the values as JSON.")
def command(
    np: int | None,
    hosts: Path | None,
    cluster: str | None,
    host_list: str | None,
    sizes: str | None,
    backends: str,
    repeats: int,
    budget_s: float,
    device: str,
    overrides: tuple[str, ...],
    out: Path | None,
    name: str | None,
    runs_dir: Path,
    oversubscribe: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Measure all-reduce: latency, algbw and busbw by message size, every element checked."""
    import json

    from hpctrain.bench.allreduce.measure import read_allreduce, write_allreduce
    from hpctrain.bench.allreduce.request import Where, describe_plan, prepare_allreduce
    from hpctrain.bench.allreduce.results import check_result, fit_links
    from hpctrain.bench.allreduce.show import render_result
    from hpctrain.bench.allreduce.sizes import plan_from_words
    from hpctrain.bench.trial import plan_trial, run_trial
    from hpctrain.executor import render_command

    plan = plan_from_words(sizes, backends, repeats, budget_s)
    where = Where(
        np=np, hosts_file=hosts, host_list=host_list, cluster=cluster,
        oversubscribe=oversubscribe, overrides=overrides, device=device,
    )  # fmt: skip
    trial, warnings = prepare_allreduce(plan, where, runs_dir, name, os.environ)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if dry_run:
        line = render_command(plan_trial(trial))
        record = {"np": trial.np, "sizes": plan.sizes, "backends": plan.backends,
                  "longest_s": plan.longest_s, "command": line}  # fmt: skip
        click.echo(json.dumps(record, indent=1) if as_json else line)
        if not as_json:
            click.echo(describe_plan(plan, trial.np), err=True)
        return 0
    click.echo(describe_plan(plan, trial.np), err=True)
    with _progress(plan.points, plan.longest_s) as on_point:
        result = read_allreduce(run_trial(trial, on_point))
    if out is not None:
        write_allreduce(out, result)
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=1))
    else:
        click.echo(render_result(result, fit_links(result)))
    check_result(result)
    return 0


@contextmanager
def _progress(total: int, longest_s: float) -> Iterator[Callable[[int], None]]:
    """Show how far it is: a bar on a terminal, else a line now and then."""
    began_s = told_s = time.monotonic()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("sizes and backends", total=total)
            yield lambda done: bar.update(task, completed=done)
        return

    def tell(done: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s >= told_s + PLAIN_INTERVAL_S:
            told_s = now_s
            left = f"at most {max(0.0, began_s + longest_s - now_s):.0f} s more"
            click.echo(f"{done} of {total} sizes and backends, {left}", err=True)

    yield tell
