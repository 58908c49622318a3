"""What a person sees while a measurement goes on: a bar with an ETA, or plain lines; on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from hpctrain.bench.scaling.timing import render_duration

if TYPE_CHECKING:
    from rich.progress import Progress


class BenchConsole:
    """Lines and a bar.

    Args:
        is_terminal: whether a bar can be shown; None for what stderr is.
    """

    def __init__(self, is_terminal: bool | None = None) -> None:
        self.is_terminal = sys.stderr.isatty() if is_terminal is None else is_terminal
        self._progress: Progress | None = None
        self._task: Any = None

    def say(self, text: str) -> None:
        """Print a line."""
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.say(click.style("warning: ", fg="yellow", bold=True) + text)

    @contextlib.contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Say, while a block runs, what it does."""
        if not self.is_terminal:
            self.say(text)
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(text):
            yield

    @contextlib.contextmanager
    def bar(self, total: int, remaining_s: Callable[[], float]) -> Iterator[None]:
        """Show, while a block runs, how much is done.

        Args:
            total: things to do; each is one call of :meth:`begin` and one of :meth:`done`.
            remaining_s: how long what is left takes, the one under way with it (s).
        """
        self._total, self._count, self._remaining_s = total, 0, remaining_s
        if not self.is_terminal:
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
        from rich.text import Text

        console = self

        class Eta(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"eta {console._eta()}")

        with Progress(
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            Eta(),
            console=Console(stderr=True, highlight=False),
        ) as self._progress:
            self._task = self._progress.add_task("", total=total)
            try:
                yield
            finally:
                self._progress.stop()
                self._progress = None

    def begin(self, title: str) -> None:
        """Say that something begins."""
        self._title, self._begun_s = title, time.monotonic()
        if self._progress is not None:
            self._progress.update(self._task, description=title)

    def step(self, step: int) -> None:
        """Say that what is under way has come to a step."""
        if self._progress is not None:
            self._progress.update(self._task, description=f"{self._title}, step {step}")

    def done(self, words: str) -> None:
        """Say that what was under way is done, and what it found."""
        self._count += 1
        took = render_duration(time.monotonic() - self._begun_s)
        self._begun_s = time.monotonic()
        line = f"{self._count}/{self._total} {self._title}: {words}, took {took}"
        if self._progress is not None:
            self._progress.update(self._task, completed=self._count)
        elif self._count < self._total:
            line += f"; eta {self._eta()}"
        self.say(line)

    def _eta(self) -> str:
        spent_s = time.monotonic() - getattr(self, "_begun_s", time.monotonic())
        return render_duration(max(0.0, self._remaining_s() - spent_s))
