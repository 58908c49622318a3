"""``hpctrain bench``: a group whose commands are imported when they are called."""

from __future__ import annotations

import click

from hpctrain.cli.lazy_group import LazyGroup

# name → (module, one line for --help).
COMMANDS: dict[str, tuple[str, str]] = {
    "scaling": ("hpctrain.cli.bench_scaling", "Measure how a training scales, with a report."),
    "report": ("hpctrain.cli.bench_report", "Write a measurement's report again."),
    "compare": ("hpctrain.cli.bench_compare", "Compare two measurements, also in CI."),
    "predict": (
        "hpctrain.cli.bench_predict",
        "What to expect on more nodes, and other networks.",
    ),
    "allreduce": (
        "hpctrain.cli.bench_allreduce",
        "Latency and bandwidth of all-reduce, by message size.",
    ),
}
DEFAULT = "scaling"
_OWN_OPTIONS = ("-h", "--help")


class BenchGroup(LazyGroup):
    """Without a command's name it measures scaling: ``hpctrain bench --np 1,2,4``."""

    table = COMMANDS

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # A first word that is no option is a command's name, perhaps mistyped.
        if not args or (args[0].startswith("-") and args[0] not in _OWN_OPTIONS):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=BenchGroup,
    epilog="""\b
Examples:
  hpctrain bench --np 1,2,4                        how it scales on this machine
  hpctrain bench --np 2,4,8 --hosts hostfile       and over several
""",
)
def command() -> None:
    """Measure: how a training scales, what the network gives, what to expect elsewhere."""
