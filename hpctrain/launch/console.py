"""What a person sees of a run: rank 0's output, the others' complaints, progress, the end.

Rank 0's standard output is ours; everything else goes to standard error, so that
``hpctrain run … > file`` holds what the program printed and nothing more.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

import click

from hpctrain.launch.outcome import Outcome
from hpctrain.launch.plan import LaunchPlan
from hpctrain.rundir import RunDirectory, log_name

PLAIN_INTERVAL_S = 5.0
LAUNCHER_TAIL_LINES = 12
RANK_TAIL_LINES = 12
LONGEST_LINE_BYTES = 8192
LONGEST_TAIL_CHARACTERS = 400


class RunConsole:
    """The console of one attempt."""

    def __init__(self, plan: LaunchPlan, run: RunDirectory) -> None:
        self.plan = plan
        self.run_directory = run
        self.progress: Any = None
        self.task: Any = None
        self.next_plain_s = 0.0
        self.first_step: tuple[int, float] | None = None
        self.latest: dict[str, Any] = {}
        self.partial_lines: dict[tuple[int, str], bytes] = {}
        self.launcher_tail: list[str] = []
        self.gone: list[TextIO] = []
        self.held_back = b""
        self.at_line_start = {False: True, True: True}  # of standard output, of standard error

    # -- while it runs -------------------------------------------------------------------------

    def header(self, attempt: int) -> None:
        """Say what starts, where."""
        places = [f"{place.host}:{place.ranks}" for place in self.plan.placement]
        where = ", ".join(places[:6]) + (f" … ({len(places)} hosts)" if len(places) > 6 else "")
        again = f", attempt {attempt}" if attempt > 1 else ""
        ranks = "1 rank" if self.plan.np == 1 else f"{self.plan.np} ranks"
        self._say(f"{self.run_directory.path}{again}: {ranks} on {where}, {self.plan.mpi}")

    def rank_output(self, rank: int, host: str, stream: str, data: bytes) -> None:
        if rank == 0:
            self._write(data, to_stderr=stream == "stderr")
        elif stream == "stderr":
            *lines, rest = (self.partial_lines.get((rank, host), b"") + data).split(b"\n")
            rest = rest.rpartition(b"\r")[2] if len(rest) > 1 else rest
            if len(rest) > LONGEST_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            self.partial_lines[rank, host] = rest
            for line in lines:
                self._tag(rank, host, line)

    def _tag(self, rank: int, host: str, line: bytes) -> None:
        """Show a line of another rank; of one that was overwritten (a progress bar), the end."""
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        self._write(f"[rank {rank} {host}] ".encode() + shown + b"\n", to_stderr=True)

    def event(self, rank: int, record: dict[str, Any]) -> None:
        if rank != 0:
            return
        self.latest.update({key: value for key, value in record.items() if value is not None})
        if record.get("event") == "step":
            self._show_step(record)
        elif record.get("event") == "eval":
            self._say(
                f"step {record.get('step')}: validation loss {_number(record.get('val_loss'))}"
            )

    def launcher_output(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self.launcher_tail = [*self.launcher_tail[-200:], text]

    def note(self, text: str) -> None:
        """Say what happens between attempts."""
        self._say(text)

    def warn(self, text: str) -> None:
        self._say(click.style("warning: ", fg="yellow", bold=True) + text)

    def _show_step(self, record: dict[str, Any]) -> None:
        step, steps = record.get("step"), self.latest.get("steps")
        now_s = time.monotonic()
        if self.first_step is None and isinstance(step, int):
            self.first_step = (step, now_s)
        if sys.stderr.isatty() and sys.stderr not in self.gone and isinstance(steps, int):
            self._show_bar(step, steps)
        elif now_s >= self.next_plain_s or step == steps:
            self.next_plain_s = now_s + PLAIN_INTERVAL_S
            of = f"/{steps}" if isinstance(steps, int) else ""
            words = [f"step {step}{of}", *self._figures()]
            eta_s = self._eta_s(step, steps, now_s)
            words += [f"eta {_duration(eta_s)}"] if eta_s is not None else []
            self._say("  ".join(words))

    def _show_bar(self, step: Any, steps: int) -> None:
        if self.progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.progress = Progress(
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(bar_width=None),
                TextColumn("{task.description}"),
                TextColumn("eta"),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True, highlight=False),
            )
            self.task = self.progress.add_task("", total=steps)
            self.progress.start()
        try:
            self.progress.update(self.task, completed=step, description="  ".join(self._figures()))
        except OSError:  # the terminal is gone
            self.progress = None
            self.gone.append(sys.stderr)

    def _figures(self) -> list[str]:
        loss, rate = self.latest.get("loss"), self.latest.get("tokens_per_s")
        words = [f"loss {_number(loss)}"] if loss is not None else []
        return [*words, f"{_count(rate)} tokens/s"] if isinstance(rate, (int, float)) else words

    def _eta_s(self, step: Any, steps: Any, now_s: float) -> float | None:
        if self.first_step is None or not isinstance(step, int) or not isinstance(steps, int):
            return None
        done, spent_s = step - self.first_step[0], now_s - self.first_step[1]
        return spent_s / done * (steps - step) if done > 0 else None

    # -- at the end ----------------------------------------------------------------------------

    def finish(self, outcome: Outcome, causes: Sequence[str] = ()) -> None:
        """Say how it ended, and where to look.

        Args:
            causes: what asking the hosts that never reported has found.
        """
        for (rank, host), rest in self.partial_lines.items():
            if rest:
                self._tag(rank, host, rest)
        self.partial_lines.clear()
        if self.progress is not None:
            with contextlib.suppress(OSError):
                self.progress.stop()
            self.progress = None
            self._write(self.held_back, to_stderr=False)
        if outcome.state == "done":
            self._say_done(outcome)
        elif outcome.state == "resumable":
            at = f" at step {outcome.step}" if outcome.step is not None else ""
            name = self.run_directory.path.name
            self._say(f"saved and stopped{at} by signal {outcome.stop_signal} after "
                      f"{_duration(outcome.duration_s)}; {self.run_directory.path}. Go on with: "
                      f"hpctrain run --resume --name {name}")  # fmt: skip
        elif outcome.state == "stopped":
            signal_name = "Ctrl-C" if outcome.stop_signal == 2 else f"signal {outcome.stop_signal}"
            at = f" at step {outcome.step}" if outcome.step is not None else ""
            self._say(f"stopped by {signal_name}{at} after {_duration(outcome.duration_s)}; "
                      f"{self.run_directory.path}")  # fmt: skip
        else:
            self._say_failed(outcome, causes)

    def _say_done(self, outcome: Outcome) -> None:
        words = [f"done in {_duration(outcome.duration_s)}"]
        for key, title in (("loss", "loss"), ("val_loss", "validation loss")):
            if self.latest.get(key) is not None:
                words.append(f"{title} {_number(self.latest[key])}")
        rate = self.latest.get("tokens_per_s")
        words += [f"{_count(rate)} tokens/s"] if isinstance(rate, (int, float)) else []
        self._say(f"{', '.join(words)}; {self.run_directory.path}")

    def _say_failed(self, outcome: Outcome, causes: Sequence[str]) -> None:
        mark = click.style("failed: ", fg="red", bold=True)
        failure, unreported = outcome.failure, outcome.unreported_ranks
        if failure is not None and failure.rank is not None and failure.rank not in unreported:
            at = f" at step {outcome.step}" if outcome.step is not None else ""
            self._say(f"{mark}rank {failure.rank} on {failure.host} failed first: "
                      f"{failure.reason}{at}, after {_duration(outcome.duration_s)}.")  # fmt: skip
            tail = self.run_directory.log_tail(failure.rank, RANK_TAIL_LINES)
            log = self.run_directory.path / "logs" / log_name(failure.rank)
        else:
            missing = len(unreported)
            when = f" before {missing} of {self.plan.np} ranks had started" if missing else ""
            what = "mpirun ended" if failure is None else failure.reason
            if failure is not None and failure.rank is not None:
                what = f"rank {failure.rank} {what}"
            self._say(f"{mark}{what}{when}{'.' if causes else '. mpirun said:'}")
            # Where a cause is known, mpirun's guesses (firewalls, PATH …) only hide it.
            tail = causes or self.launcher_tail[-LAUNCHER_TAIL_LINES:]
            log = self.run_directory.path / "logs" / "mpirun.log"
        for line in tail or ["(it printed nothing)"]:
            self._say(f"  | {line[-LONGEST_TAIL_CHARACTERS:]}")
        self._say(f"  log: {log}")

    # -- writing -------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        """Say something of our own, on a line of its own."""
        if not sys.stderr.isatty():
            text = click.unstyle(text)
        both = sys.stdout.isatty() and sys.stderr.isatty()
        fresh = self.at_line_start[True] and (self.at_line_start[False] or not both)
        self._write(f"{'' if fresh else chr(10)}{text}\n".encode(), to_stderr=True)

    def _write(self, data: bytes, *, to_stderr: bool) -> None:
        """Write, and go quiet where whoever read it has left: the run goes on."""
        stream = sys.stderr if to_stderr else sys.stdout
        if stream in self.gone or not data:
            return
        try:
            if self.progress is not None and stream.isatty():
                self._print_above_the_bar(data)
            else:
                stream.buffer.write(data)
                stream.flush()
                self.at_line_start[to_stderr] = data.endswith(b"\n")
        except (OSError, ValueError):
            self.gone.append(stream)
            self.progress = None
            with contextlib.suppress(OSError, ValueError):
                # Else Python fails once more when it flushes at its end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    def _print_above_the_bar(self, data: bytes) -> None:
        """Print whole lines: a piece of one would be torn from the rest by the bar."""
        from rich.text import Text

        lines, newline, self.held_back = (self.held_back + data).rpartition(b"\n")
        if newline:
            text = Text.from_ansi(lines.decode(errors="replace"))
            self.progress.console.print(text, soft_wrap=True)


def _duration(seconds: float | None) -> str:
    """Return a duration as people read it.

    >>> _duration(3.21), _duration(75), _duration(7325)
    ('3.2 s', '1:15', '2:02:05')
    """
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _count(value: float) -> str:
    if abs(value) > 1e15:  # a foreign program may report anything
        return "> 1e15"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
