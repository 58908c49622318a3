"""``hpctrain tune``: parse, plan, measure, print."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from hpctrain.cli.launch_options import (
    config_option,
    host_options,
    np_option,
    oversubscribe_option,
    probe_option,
    set_option,
)
from hpctrain.errors import EXIT_INTERRUPTED


def _complete_only(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from hpctrain.tune.plan import knob_names

    done, comma, word = incomplete.rpartition(",")
    names = [name for name in knob_names() if name.startswith(word)]
    return [CompletionItem(f"{done}{comma}{name}") for name in names]


def _complete_folder(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]


@click.command(
    epilog="""\b
Examples:
  hpctrain tune --config demo                          which settings are fastest here
  hpctrain tune --np 8 --hosts hostfile --budget 20m --out big.toml
  hpctrain tune --only comm.bucket_mb,HOROVOD_CYCLE_TIME --set model.preset=small
  hpctrain tune --dry-run                              what would be tried, and why
  hpctrain tune --dir tunings/demo-20261120-171512     go on where Ctrl-C stopped it
  hpctrain run --config tuned.toml                     train with what was found

\b
Exit codes: 0 done, also where the settings stay; 1 the run itself fails; 2 usage; 130 Ctrl-C.
""",
)
@np_option
@host_options
@config_option
@set_option
@click.option(
    "--budget",
    default="10m",
    show_default=True,
    metavar="TIME",
    help="Longest time of all trials together: 90s, 10m, 1h30m.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAMES",
    shell_complete=_complete_only,
    help="Tune these alone: comm.bucket_mb,HOROVOD_CYCLE_TIME. Repeatable.",
)
@click.option(
    "--allow-lossy",
    is_flag=True,
    help="Also choose what changes the numbers: comm.compression.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("tuned.toml"),
    show_default=True,
    help="The file to write, for `hpctrain run --config`.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    shell_complete=_complete_folder,
    help="Work directory; one that is there already is gone on with. "
    "Default: a new one in tunings/.",
)
@click.option("--force", is_flag=True, help="Write over --out where another tuning made it.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the order of trials.")
@oversubscribe_option
@probe_option
@click.option("--dry-run", is_flag=True, help="Print what would be tried, and why; start nothing.")
@click.option("--json", "as_json", is_flag=True, help="The plan, or what was found, as JSON.")
def command(
    np: int | None,
    hosts: Path | None,
    host_list: str | None,
    cluster: str | None,
    config_name: str | None,
    overrides: tuple[str, ...],
    budget: str,
    only: tuple[str, ...],
    allow_lossy: bool,
    out: Path,
    folder: Path | None,
    seed: int,
    oversubscribe: bool,
    probe: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Measure which settings of exchange and launch are fastest, and write them to a file.

    Short runs of the trainer compare candidates within a time budget, most of it for the best
    ones. What gains no more than the measurements' spread stays as it is.
    """
    from hpctrain.tune import show
    from hpctrain.tune.asked import TuneAsked
    from hpctrain.tune.request import prepare_tuning
    from hpctrain.tune.run import run_tuning

    asked = TuneAsked(
        folder=folder or _new_folder(config_name),
        np=np,
        hosts_file=hosts,
        host_list=host_list,
        cluster=cluster,
        config_name=config_name,
        overrides=overrides,
        only=tuple(word.strip() for words in only for word in words.split(",")),
        budget=budget,
        out=out,
        seed=seed,
        allow_lossy=allow_lossy,
        oversubscribe=oversubscribe,
        probe=probe,
        force=force,
    )
    tuning = prepare_tuning(asked, os.environ)
    for warning in tuning.warnings:
        click.echo(click.style("warning: ", fg="yellow", bold=True) + warning, err=True)
    if dry_run:
        if as_json:
            click.echo(json.dumps(show.plan_as_json(tuning), indent=2))
        else:
            show.print_plan(tuning, err=False)
        return 0
    try:
        run_tuning(tuning, as_json=as_json)
    except KeyboardInterrupt:
        place = tuning.asked.folder
        click.echo(f"stopped; what was measured is kept. Go on: hpctrain tune --dir {place}",
                   err=True)  # fmt: skip
        return EXIT_INTERRUPTED
    return 0


def _new_folder(config_name: str | None) -> Path:
    stem = Path(config_name).stem if config_name else "train"
    return Path("tunings") / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid() % 1000:03d}"
