"""``hpctrain env``: what is set, and by whom."""

from __future__ import annotations

import click

from hpctrain.cli.lazy_group import LazyGroup

COMMANDS = {
    "explain": ("hpctrain.cli.env_explain", "Show every variable that NCCL and MPI read."),
}


class Env(LazyGroup):
    """Its commands."""

    table = COMMANDS


@click.group(cls=Env, epilog="Try: hpctrain env explain --hosts hostfile")
def command() -> None:
    """Explain the variables that NCCL, MPI, UCX, libfabric and Horovod read."""
