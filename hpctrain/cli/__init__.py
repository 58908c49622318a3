"""The command line: one command a file, imported when it is called."""

from __future__ import annotations

import sys
from typing import Any

import click

from hpctrain import __version__
from hpctrain.cli.lazy_group import LazyGroup
from hpctrain.errors import EXIT_FAILED, EXIT_INTERRUPTED, HpctrainError

# name → (module, one line for --help). Listing needs no import, so --help answers at once.
COMMANDS = {
    "run": ("hpctrain.cli.run", "Start a training run or any program under mpirun."),
    "runs": ("hpctrain.cli.runs", "List, show and remove runs."),
    "bench": ("hpctrain.cli.bench", "Measure scaling and collectives; predict and compare."),
    "tune": ("hpctrain.cli.tune", "Measure which settings are fastest here."),
    "cluster": ("hpctrain.cli.cluster", "Make clusters, disturb and remove them."),
    "data": ("hpctrain.cli.data", "Prepare training data."),
    "export": ("hpctrain.cli.export", "Write a checkpoint's model for other programs."),
    "generate": ("hpctrain.cli.generate", "Let a checkpoint's model write text."),
    "env": ("hpctrain.cli.env", "Show which variables are set, and by whom."),
    "estimate": ("hpctrain.cli.estimate", "Say what a training needs: memory, time, money."),
    "preflight": ("hpctrain.cli.preflight", "Find what would stop a run, on every host at once."),
    "install-horovod": ("hpctrain.cli.install_horovod", "Build and install Horovod for this MPI."),
    "completion": ("hpctrain.cli.completion", "Print the script for tab completion."),
}


class Hpctrain(LazyGroup):
    """All commands."""

    table = COMMANDS


@click.group(
    cls=Hpctrain,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with 'hpctrain preflight', then 'hpctrain run --np 2 -- hostname'.",
)
@click.version_option(__version__, prog_name="hpctrain")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Distributed training over MPI and Horovod, from one machine to a cluster."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line; exit with the documented code."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        code: Any = cli.main(args=arguments, prog_name="hpctrain", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except HpctrainError as problem:
        if "--debug" in arguments[:1]:
            raise
        for message in problem.messages:
            click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # | head
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    except OSError as problem:
        if "--debug" in arguments[:1]:
            raise
        click.echo(click.style("error: ", fg="red", bold=True) + str(problem), err=True)
        sys.exit(EXIT_FAILED)
    sys.exit(code if isinstance(code, int) else 0)
