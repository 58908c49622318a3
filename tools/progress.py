"""One line a step, its log, and what to say when it fails."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TAIL_LINES = 30
_PERCENT = re.compile(r"^compiling\s+(\d+) %")


class StepFailed(Exception):
    """A step's command failed; the message is ready to be printed."""


class Progress:
    """Prints ``[3/7] what … 31 s`` and keeps the output of each step's commands in a log."""

    def __init__(self, total: int, logs: Path) -> None:
        self.total = total
        self.number = 0
        self.logs = logs
        self.log = logs / "setup.log"
        self.line = ""
        self.shown = 0  # percent of a build
        self.noted = False  # whether the step's own line is no longer the last one
        self.started_s = 0.0
        self.live = sys.stdout.isatty()
        logs.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        """Announce a step, run the body, print the seconds that it took."""
        self.number += 1
        self.log = self.logs / f"{name}.log"
        self.log.write_bytes(b"")
        self.line = f"[{self.number}/{self.total}] {what} …"
        self.shown = 0
        self.noted = False
        self.started_s = time.monotonic()
        print(self.line, end=" ", flush=True)
        yield
        done = f"{time.monotonic() - self.started_s:.0f} s"
        if self.live:
            self._rewrite("    done," if self.noted else self.line, done)
            print(flush=True)
        else:
            print(done, flush=True)

    def run(self, argv: Sequence[str], hint: str) -> None:
        """Run a command of the current step to its end.

        Args:
            hint: what the user can do when it fails.

        Raises:
            StepFailed: with the last lines of the log, its path and the hint.
        """
        if (code := self.attempt(argv)) != 0:
            raise self.failure(code, hint)

    def failure(self, code: int, hint: str) -> StepFailed:
        """Return the error of the current step: its last lines, the log and what to do."""
        tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = "\n".join(f"    {line}" for line in tail[-TAIL_LINES:])
        return StepFailed(
            f"{self.line} failed, got exit code {code}; expected 0. The last lines:\n"
            f"{lines}\nThe whole log: {self.log}\n{hint}"
        )

    def attempt(self, argv: Sequence[str]) -> int:
        """Run a command of the current step and return its exit code."""
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(argv)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            for line in process.stdout or ():
                log.write(line)
                log.flush()
                self._show(line.decode(errors="replace"))
        return process.wait()

    def note(self, text: str) -> None:
        """Print a line below the one of the current step."""
        self.noted = True
        print(f"\n    {text}", end="\n" if self.live else " ", flush=True)

    def _rewrite(self, line: str, end: str) -> None:
        """Replace the last line of the terminal, cut so that it stays one."""
        room = shutil.get_terminal_size().columns - len(end) - 2
        print(f"\r\x1b[K{line[:room]} {end}", end="", flush=True)

    def _show(self, line: str) -> None:
        """Show how far a build is, and what it changes and why."""
        if match := _PERCENT.match(line):
            percent = int(match[1])
            if self.live:
                elapsed_s = time.monotonic() - self.started_s
                line = "    compiling" if self.noted else self.line
                self._rewrite(line, f"{percent} %, {elapsed_s:.0f} s")
            elif self.shown == 0:
                self.note("compiling")
            elif percent // 25 > self.shown // 25:
                print(f"{percent} %", end=" ", flush=True)
            self.shown = percent
        elif line.startswith(("change ", "taken from ", "another build")):
            self.note(line.rstrip())
