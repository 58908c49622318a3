"""What a person sees while a cluster is made or removed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click


class ClusterConsole:
    """Lines on standard output, warnings on standard error; a spinner where somebody watches.

    Args:
        quiet: print nothing but warnings: standard output is to hold data alone.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            click.echo(text)

    def warn(self, text: str) -> None:
        """Print a warning."""
        click.echo(click.style("warning: ", fg="yellow") + text, err=True)

    @contextlib.contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show, while a block runs, that something takes long."""
        if self.quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(text):
            yield
