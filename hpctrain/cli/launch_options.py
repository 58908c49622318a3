"""Options that several commands have, worded once: where ranks run, how they are configured."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from hpctrain.cli.cluster_options import complete_cluster_name


def complete_set(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer settings, and after ``=`` their values."""
    from hpctrain.config import all_keys, choices_of

    key, equals, value = incomplete.partition("=")
    if equals:
        choices = choices_of(key)
        return [CompletionItem(f"{key}={each}") for each in choices if each.startswith(value)]
    return [CompletionItem(f"{key}=") for key in all_keys() if key.startswith(incomplete)]


def complete_config(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer recipes, else files."""
    from hpctrain.recipes import recipe_names

    recipes = [CompletionItem(name) for name in recipe_names() if name.startswith(incomplete)]
    return recipes or complete_file(ctx, param, incomplete)


def complete_file(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Leave it to the shell."""
    return [CompletionItem(incomplete, type="file")]


def finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse "inf" and "nan", which click takes for numbers."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"no number, got {value}; expected a finite one.", ctx, param)
    return value


np_option = click.option(
    "--np", "-np", "-n", "np", type=click.IntRange(min=1), help="Ranks. Default: all slots."
)
config_option = click.option(
    "--config",
    "config_name",
    metavar="FILE.toml",
    shell_complete=complete_config,
    help="Configuration file, or the name of a recipe that comes with hpctrain.",
)


def set_option_of(what: str) -> Callable[..., Any]:
    """Return --set, for a command that takes only some of the settings."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        shell_complete=complete_set,
        help=f"{what} Repeatable.",
    )


set_option = set_option_of("Override one setting, e.g. train.steps=100.")
oversubscribe_option = click.option(
    "--oversubscribe", is_flag=True, help="Allow more ranks than slots."
)
exclude_file_option = click.option(
    "--exclude-file",
    type=click.Path(path_type=Path, dir_okay=False),
    shell_complete=complete_file,
    help="Leave out the hosts that this file names, a name a line: preflight's hosts-failed.",
)
probe_option = click.option(
    "--probe", is_flag=True, help="Ask the hosts for their facts first, and keep them."
)
runs_dir_option = click.option(
    "--runs-dir",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where run directories are.",
)
spares_option = click.option(
    "--spares",
    metavar="N|LIST",
    help="Hosts that take no rank until others fail: the last N, or their names.",
)
usd_per_hour_option = click.option(
    "--usd-per-hour",
    type=click.FloatRange(min=0),
    callback=finite,
    metavar="USD",
    help="What all hosts together cost an hour. Default: a cloud's list price.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")
program_argument = click.argument(
    "program",
    metavar="[COMMAND]...",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=complete_file,
)


def host_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --hosts, --cluster and -H, in this order."""
    options = (
        click.option("--hosts", type=click.Path(path_type=Path), help="Open MPI hostfile."),
        click.option(
            "--cluster",
            metavar="NAME",
            shell_complete=complete_cluster_name,
            help="The hosts of a cluster that `hpctrain cluster up` made.",
        ),
        click.option("-H", "host_list", metavar="LIST", help="Hosts and slots: a:2,node[1-4]:8."),
    )
    for option in reversed(options):
        command = option(command)
    return command
