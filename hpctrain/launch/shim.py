"""The rank shim: what stands between any MPI's launcher and a rank's program.

``python -m hpctrain.launch.shim -- PROGRAM …`` is started once a rank, under every MPI and
scheduler. It finds out which rank it is, decides what depends on its host (threads, the name
of the chosen network's interface), starts the program, and reports to the launcher: output,
events, heartbeats, and how the program ended. It ends the program when the launcher is gone.

It imports little: its start-up time is paid by every rank of every launch.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from hpctrain.cores import count_cores
from hpctrain.errors import EXIT_FAILED, HpctrainError
from hpctrain.events import EVENTS_FD_VARIABLE
from hpctrain.executor import Command, LocalExecutor, adopt_orphans
from hpctrain.launch.channel import (
    CHANNEL_VARIABLE,
    HEARTBEAT_INTERVAL_S,
    OUTPUT_CHUNK_BYTES,
    SECRET_VARIABLE,
    STDIO_CHUNK_BYTES,
    STDIO_MARK,
    ChannelError,
    LineBuffer,
    connect,
    decode_frame,
    encode_frame,
)
from hpctrain.launch.descendants import descendants, signal_group
from hpctrain.launch.mpi_library import find_foreign_mpi
from hpctrain.launch.rank_env import RankIdentity, find_rank, plan_rank_env
from hpctrain.launch.rank_life import is_cut_off, process_state
from hpctrain.launch.stacks import STACKS_FD_VARIABLE, collect_stacks
from hpctrain.pulse import PULSE_FD_VARIABLE, PulsePage

if TYPE_CHECKING:
    import subprocess

FIRST_LOOK_S = 0.1
MAX_SWEEPS = 200  # with 10 ms between them; only a process in an uninterruptible call needs more
# A loop that comes back so much later than it meant to was itself held up (a suspended job): its
# program could not move either, and that is no standstill.
HELD_UP_S = 10.0
# Enough for a burst of output; beyond it the program waits, as it would on a full pipe.
MAX_UNSENT_BYTES = 4 << 20
FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SAVE_SIGNAL_VARIABLE = "HPCTRAIN_SAVE_SIGNAL"
EXIT_NOT_FOUND = 127


def main(argv: list[str]) -> int:
    """Run one rank; return its exit code (128+n after signal n)."""
    program = tuple(argv[1:] if argv[:1] == ["--"] else argv)
    rank = find_rank(os.environ)
    environ = {k: v for k, v in os.environ.items() if k not in (SECRET_VARIABLE, CHANNEL_VARIABLE)}
    interfaces = _interfaces() if environ.get("HPCTRAIN_SUBNET") else {}
    cores = 1 if "OMP_NUM_THREADS" in environ else count_cores()
    environ.update(plan_rank_env(environ, rank, cores, interfaces))
    address = os.environ.get(CHANNEL_VARIABLE, "")
    if not address:  # a dry run's command, run by hand: nobody listens
        return _run_unobserved(program, environ)
    return RankShim(rank, program, environ, address).run()


class RankShim:
    """One rank's program, watched."""

    def __init__(
        self, rank: RankIdentity, program: tuple[str, ...], environ: Mapping[str, str], address: str
    ) -> None:
        self.rank = rank
        self.program = program
        self.environ = dict(environ)
        self.grace_s = float(environ.get("HPCTRAIN_GRACE_S") or 5.0)
        self.cut_off_s = float(environ.get("HPCTRAIN_CUT_OFF_S") or 60.0)
        self.pulse = PulsePage()
        self.stacks = os.memfd_create("hpctrain-stacks")
        os.set_inheritable(self.stacks, True)
        self.selector = selectors.DefaultSelector()
        self.event_lines = LineBuffer()
        self.launcher_lines = LineBuffer()
        self.unsent = bytearray()
        self.open_pipes: dict[int, str] = {}
        self.paused_pipes: list[int] = []
        self.last_step: int | None = None
        self.kill_at_s: float | None = None
        self.awake_since_s = 0.0
        self.foreign_mpi: str | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.connection = self._connect(address)

    def run(self) -> int:
        """Start the program and pass on what it says until it has ended."""
        self._watch_signals()
        adopt_orphans()
        code = self._start()
        if code is None:
            code = self._watch()
        self._flush()
        return code

    def _connect(self, address: str) -> socket.socket | None:
        hello = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "size": self.rank.size,
            "local_rank": self.rank.local_rank,
        }
        secret = os.environ.get(SECRET_VARIABLE, "")
        try:
            connection = connect(address, secret, self.rank.rank, hello)
        except (OSError, ChannelError) as problem:
            # mpirun's own forwarding still works: say why it is used, then use it.
            self.connection = None
            self._send("hello", **hello, fallback=f"{address}: {problem}")
            return None
        self.selector.register(connection, selectors.EVENT_READ, "launcher")
        return connection

    def _watch_signals(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*FORWARDED_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self.selector.register(reader, selectors.EVENT_READ, "signal")

    def _start(self) -> int | None:
        pipes = {name: os.pipe() for name in ("stdout", "stderr", "events")}
        os.set_inheritable(pipes["events"][1], True)
        # With the pipe's identity: a process that closed it may have reused the number.
        inode = os.fstat(pipes["events"][1]).st_ino
        self.environ[EVENTS_FD_VARIABLE] = f"{pipes['events'][1]}:{inode}"
        self.environ[PULSE_FD_VARIABLE] = self.pulse.variable
        self.environ[STACKS_FD_VARIABLE] = f"{self.stacks}:{os.fstat(self.stacks).st_ino}"
        # A program inherits blocked signals. SIGUSR1 would end a trainer that is still importing;
        # so it waits until the trainer listens.
        holds = self.environ.get(SAVE_SIGNAL_VARIABLE) == "held"
        if holds:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            self.child = LocalExecutor().start(
                Command(self.program),
                stdout=pipes["stdout"][1],
                stderr=pipes["stderr"][1],
                only_env=self.environ,
                parent_death_signal=signal.SIGKILL,
                new_session=True,  # mpirun signals whole groups: we decide what the program gets
                close_fds=False,  # Hydra's ranks talk to it through an inherited descriptor
            )
        except OSError as problem:
            self._send("exit", code=EXIT_NOT_FOUND, error=f"{self.program[0]}: {problem.strerror}")
            return EXIT_NOT_FOUND
        finally:
            if holds:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        for name, (reader, writer) in pipes.items():
            os.close(writer)
            os.set_blocking(reader, False)
            self.open_pipes[reader] = name
            self.selector.register(reader, selectors.EVENT_READ, name)
        self._send("start", program_pid=self.child.pid, threads=self.environ.get("OMP_NUM_THREADS"))
        return None

    def _watch(self) -> int:
        assert self.child is not None
        now_s = time.monotonic()
        heartbeat_at_s = now_s + HEARTBEAT_INTERVAL_S
        look_every_s = FIRST_LOOK_S
        deadline_s = look_at_s = now_s + look_every_s
        while True:
            now_s = time.monotonic()
            if now_s > deadline_s + HELD_UP_S:
                self.awake_since_s = now_s
            if now_s >= heartbeat_at_s:
                self._send("beat", **self._describe_life(now_s))
                self._end_if_cut_off()
                heartbeat_at_s = now_s + HEARTBEAT_INTERVAL_S
            if now_s >= look_at_s:
                self._check_mpi_library()
                look_every_s = min(2 * look_every_s, HEARTBEAT_INTERVAL_S)
                look_at_s = now_s + look_every_s
            if self.kill_at_s is not None and now_s >= self.kill_at_s:
                signal_group(self.child.pid, signal.SIGKILL)
                self.kill_at_s = float("inf")
            deadline_s = min(heartbeat_at_s, look_at_s, self.kill_at_s or heartbeat_at_s)
            for key, _ in self.selector.select(max(0.0, deadline_s - now_s)):
                self._handle(key.fd, key.data)
            self._write_out()
            code = self.child.poll()
            if code is not None:
                return self._say_exit(code)

    def _say_exit(self, code: int) -> int:
        """End what the program has left, and tell how it ended; return the rank's exit code.

        Args:
            code: as :class:`subprocess.Popen` has it, -n after signal n.
        """
        was_asked = self.kill_at_s is not None
        life = self._describe_life(time.monotonic())
        self._end_descendants()
        self._read_what_is_left()
        number = -code if code < 0 else None
        code = code if code >= 0 else 128 - code
        if self.foreign_mpi:
            code, number = EXIT_FAILED, None
        said = {key: life[key] for key in ("pulse", "still_s")}
        self._send(
            "exit", code=code, signal=number, error=self.foreign_mpi, asked=was_asked, **said
        )
        return code

    def _describe_life(self, now_s: float) -> dict[str, object]:
        """Return what a heartbeat says: how far the program is, and whether it moves."""
        assert self.child is not None
        pulse, still_s = self.pulse.read(), None
        if pulse is not None:
            still_s = round(now_s - max(pulse.changed_at_s, self.awake_since_s), 3)
        return {
            "step": self.last_step,
            "state": process_state(self.child.pid),
            "pulse": pulse,
            "still_s": still_s,
        }

    def _end_if_cut_off(self) -> None:
        """End the program where the launcher's host no longer answers: nobody else could.

        A launcher that is only stopped, or waits for a pager, is still answered for by its kernel.
        """
        if self.connection is not None and is_cut_off(self.connection, self.cut_off_s):
            self._lose_launcher()

    def _check_mpi_library(self) -> None:
        """End a program that belongs to another MPI: every rank of it runs alone."""
        if self.foreign_mpi or self.rank.size == 1 or self.environ.get("HPCTRAIN_ANY_MPI"):
            return
        for pid in descendants(os.getpid()):
            with (
                suppress(OSError),
                open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file,
            ):
                problem = find_foreign_mpi(file.read(), self.environ)
                if problem:
                    self.foreign_mpi = f"{problem}: every rank would run alone"
                    self._pass_on(signal.SIGTERM)
                    return

    def _handle(self, descriptor: int, source: str) -> None:
        if source == "launcher":
            self._hear_launcher()
        elif source == "signal":
            for number in os.read(descriptor, 64):
                if number != signal.SIGCHLD:
                    self._pass_on(number)
        else:
            self._read_pipe(descriptor, source)

    def _hear_launcher(self) -> None:
        assert self.connection is not None
        try:
            data = self.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose_launcher()
            return
        for line in self.launcher_lines.feed(data):
            frame = decode_frame(line)
            if frame["kind"] == "signal":
                self._pass_on(int(frame["number"]))
            elif frame["kind"] == "stacks" and self.child is not None:
                self._send("stacks", text=collect_stacks(self.child.pid, self.stacks))

    def _lose_launcher(self) -> None:
        """The launcher is gone: nobody would ever end this rank, so it ends itself."""
        assert self.connection is not None
        self.selector.unregister(self.connection)
        self.connection.close()
        self.connection = None
        self.unsent.clear()
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: int) -> None:
        assert self.child is not None
        ending = number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if ending and self.kill_at_s is not None:
            return  # asked by launcher and mpirun: the program need not hear it twice
        if self.child.poll() is None:
            if number in (signal.SIGUSR1, signal.SIGUSR2):
                # For the program alone: its helpers (loaders, compilers) would die of it.
                os.kill(self.child.pid, number)
            else:
                signal_group(self.child.pid, number)
        if ending:
            self.kill_at_s = time.monotonic() + self.grace_s

    def _read_pipe(self, descriptor: int, source: str) -> bool:
        """Pass on what a pipe holds; return whether it may hold more."""
        chunk_bytes = OUTPUT_CHUNK_BYTES if self.connection else STDIO_CHUNK_BYTES
        try:
            data = os.read(descriptor, chunk_bytes)
        except BlockingIOError:
            return False
        if not data:
            if descriptor in self.paused_pipes:
                self.paused_pipes.remove(descriptor)
            else:
                self.selector.unregister(descriptor)
            os.close(descriptor)
            del self.open_pipes[descriptor]
        elif source == "events":
            self._read_events(data)
        else:
            self._send("output", stream=source, data=data.decode("latin-1"))
        return bool(data)

    def _read_events(self, data: bytes) -> None:
        try:
            lines = self.event_lines.feed(data)
        except ChannelError as problem:
            self.event_lines = LineBuffer()
            warning = f"hpctrain: an event was dropped: {problem}\n"
            self._send("output", stream="stderr", data=warning)
            return
        for line in lines:
            self._pass_on_event(line)

    def _pass_on_event(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            step = event.get("step")
        except (ValueError, RecursionError, AttributeError):
            return  # some other program wrote to the descriptor
        if isinstance(step, int):
            self.last_step = step
        self._send("event", record=event)

    def _read_what_is_left(self) -> None:
        for descriptor, source in list(self.open_pipes.items()):
            while descriptor in self.open_pipes and self._read_pipe(descriptor, source):
                pass

    def _end_descendants(self) -> None:
        """Kill what the program left running: loaders and helpers must not outlive their rank.

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
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _send(self, kind: str, **fields: object) -> None:
        if self.connection is None:
            fields["rank"] = self.rank.rank
            with suppress(OSError):  # mpirun is gone too: there is nobody left to tell
                sys.stdout.buffer.write(STDIO_MARK + encode_frame(kind, **fields))
                sys.stdout.buffer.flush()
            return
        self.unsent += encode_frame(kind, **fields)
        self._write_out()

    def _write_out(self) -> None:
        """Send what the socket takes; stop reading the program's output while too much waits."""
        if self.connection is not None and self.unsent:
            try:
                sent = self.connection.send(self.unsent)
                del self.unsent[:sent]
            except BlockingIOError:
                pass
            except OSError:
                self.unsent.clear()  # the next read from the launcher finds it gone
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)
            self.selector.modify(self.connection, events, "launcher")
        if len(self.unsent) > MAX_UNSENT_BYTES and not self.paused_pipes:
            self.paused_pipes = [fd for fd, name in self.open_pipes.items() if name != "events"]
            for descriptor in self.paused_pipes:
                self.selector.unregister(descriptor)
        elif len(self.unsent) < MAX_UNSENT_BYTES // 2 and self.paused_pipes:
            for descriptor in self.paused_pipes:
                self.selector.register(
                    descriptor, selectors.EVENT_READ, self.open_pipes[descriptor]
                )
            self.paused_pipes = []

    def _flush(self) -> None:
        """Send all that waits, however slowly the launcher takes it, then close in order."""
        while self.connection is not None and self.unsent:
            for key, _ in self.selector.select(1.0):
                if key.data in ("launcher", "signal"):
                    self._handle(key.fd, key.data)
            self._write_out()
            if self.kill_at_s is not None and time.monotonic() >= self.kill_at_s:
                break  # asked to end, and the launcher does not listen
        if self.connection is not None:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_WR)
            self.connection.close()


def _run_unobserved(program: tuple[str, ...], environ: Mapping[str, str]) -> int:
    try:
        os.execvpe(program[0], list(program), dict(environ))
    except OSError as problem:
        print(f"{program[0]}: {problem.strerror}", file=sys.stderr)
        return EXIT_NOT_FOUND


def _interfaces() -> dict[str, tuple[str, ...]]:
    """Return this host's interfaces with their addresses."""
    import psutil

    return {
        name: tuple(entry.address.partition("%")[0] for entry in entries)
        for name, entries in psutil.net_if_addrs().items()
    }


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except HpctrainError as refused:
        print(f"error: {refused}", file=sys.stderr)
        sys.exit(refused.exit_code)
