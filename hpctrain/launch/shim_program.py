"""A rank's program: start it, look after it, signal it, and leave nothing of it behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from hpctrain.events import EVENTS_FD_VARIABLE
from hpctrain.executor import Command, LocalExecutor
from hpctrain.launch.descendants import descendants, signal_group, signal_process
from hpctrain.launch.mpi_library import find_foreign_mpi
from hpctrain.launch.rank_life import group_state
from hpctrain.launch.shim_output import STREAMS
from hpctrain.launch.stacks import STACKS_FD_VARIABLE, collect_stacks
from hpctrain.pulse import PULSE_FD_VARIABLE, PulsePage

if TYPE_CHECKING:
    import subprocess

SAVE_SIGNAL_VARIABLE = "HPCTRAIN_SAVE_SIGNAL"
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MAX_SWEEPS = 200  # with 10 ms between them; only a process in an uninterruptible call needs more


class Program:
    """The program of one rank.

    Args:
        size: ranks in all.
    """

    def __init__(self, argv: tuple[str, ...], environ: Mapping[str, str], size: int) -> None:
        self._argv, self._environ, self._size = argv, dict(environ), size
        self._grace_s = float(environ.get("HPCTRAIN_GRACE_S") or 5.0)
        self._pulse = PulsePage()
        self._stacks = os.memfd_create("hpctrain-stacks")
        os.set_inheritable(self._stacks, True)
        self._child: subprocess.Popen[bytes] | None = None
        self.kill_at_s: float | None = None
        """When it is killed, once it was asked to end (monotonic); None before."""
        self.awake_since_s = 0.0
        """When its host, or the job, was last suspended (monotonic)."""
        self.foreign_mpi: str | None = None
        """Why it cannot be a rank."""

    @property
    def is_started(self) -> bool:
        return self._child is not None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def start(self) -> dict[int, str]:
        """Start it; return the descriptors to read from, each with the name of its stream.

        Raises:
            OSError: it cannot be run.
        """
        pipes = {stream: os.pipe() for stream in STREAMS}
        self._tell_descriptors(pipes["events"][1])
        # A program inherits blocked signals. SIGUSR1 would end a trainer that is still importing;
        # so it waits until the trainer listens.
        holds = self._environ.get(SAVE_SIGNAL_VARIABLE) == "held"
        if holds:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            self._child = LocalExecutor().start(
                Command(self._argv),
                stdout=pipes["stdout"][1],
                stderr=pipes["stderr"][1],
                only_env=self._environ,
                parent_death_signal=signal.SIGKILL,
                new_session=True,  # mpirun signals whole groups: we decide what the program gets
                close_fds=False,  # Hydra's ranks talk to it through an inherited descriptor
            )
        finally:
            if holds:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
            for _, writer in pipes.values():
                os.close(writer)
        for reader, _ in pipes.values():
            os.set_blocking(reader, False)
        return {reader: stream for stream, (reader, _) in pipes.items()}

    def _tell_descriptors(self, events: int) -> None:
        """Say in its environment where its events, pulse and stacks go."""
        os.set_inheritable(events, True)
        # With the pipe's identity: a process that closed it may have reused the number.
        self._environ[EVENTS_FD_VARIABLE] = f"{events}:{os.fstat(events).st_ino}"
        self._environ[PULSE_FD_VARIABLE] = self._pulse.variable
        self._environ[STACKS_FD_VARIABLE] = f"{self._stacks}:{os.fstat(self._stacks).st_ino}"

    def poll(self) -> int | None:
        """Return how it ended, as :class:`subprocess.Popen` has it; None while it runs."""
        assert self._child is not None
        return self._child.poll()

    # -- while it runs -------------------------------------------------------------------------

    def describe_life(self, now_s: float) -> dict[str, object]:
        """Return whether it moves: its pulse, since when that has not changed, and its state."""
        pulse, still_s = self._pulse.read(), None
        if pulse is not None:
            still_s = round(now_s - max(pulse.changed_at_s, self.awake_since_s), 3)
        state = group_state(self.pid, descendants(os.getpid()))
        return {"state": state, "pulse": pulse, "still_s": still_s}

    def describe_stacks(self) -> str:
        """Return where it is."""
        return collect_stacks(self.pid, self._stacks)

    def check_mpi_library(self) -> None:
        """End it where it belongs to another MPI: every rank of it runs alone."""
        if self.foreign_mpi or self._size == 1 or self._environ.get("HPCTRAIN_ANY_MPI"):
            return
        for pid in descendants(os.getpid()):
            with (
                suppress(OSError),
                open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file,
            ):
                problem = find_foreign_mpi(file.read(), self._environ)
                if problem:
                    self.foreign_mpi = f"{problem}: every rank would run alone"
                    self.pass_on(signal.SIGTERM)
                    return

    # -- its end -------------------------------------------------------------------------------

    def pass_on(self, number: int) -> None:
        """Pass a signal on; one that asks it to end also sets the time by which it has to."""
        ending = number in ENDING_SIGNALS
        if ending and self.kill_at_s is not None:
            return  # asked by launcher and mpirun: the program need not hear it twice
        if self._child is not None and self._child.poll() is None:
            if number in (signal.SIGUSR1, signal.SIGUSR2):
                # For the program alone: its helpers (loaders, compilers) would die of it.
                signal_process(self._child.pid, number)
            else:
                signal_group(self._child.pid, number)
        if ending:
            self.kill_at_s = time.monotonic() + self._grace_s

    def kill_if_due(self, now_s: float) -> None:
        """Kill it where it was asked to end and has not."""
        if self.kill_at_s is not None and now_s >= self.kill_at_s:
            signal_group(self.pid, signal.SIGKILL)
            self.kill_at_s = float("inf")

    def end_descendants(self) -> None:
        """Kill what it left running: loaders and helpers must not outlive their rank.

        Again until none is found: while one list is read, an orphan may move from a parent that
        ends to us, and stand in neither.
        """
        for _ in range(MAX_SWEEPS):
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass  # orphans that have ended
            pids = descendants(os.getpid())
            if not pids:
                return
            for pid in pids:
                signal_process(pid, signal.SIGKILL)
            time.sleep(0.01)
