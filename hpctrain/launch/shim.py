"""The rank shim: what stands between any MPI's launcher and a rank's program.

``python -m hpctrain.launch.shim -- PROGRAM …`` is started once a rank, under every MPI and
scheduler. It finds out which rank it is, decides what depends on its host (threads, the name
of the chosen network's interface), starts the program, and reports to the launcher: output,
events, heartbeats, and how the program ended. It ends the program when the launcher is gone.

It imports little: its start-up time is paid by every rank of every launch.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping

from hpctrain.cores import count_cores
from hpctrain.errors import EXIT_FAILED, HpctrainError
from hpctrain.executor import adopt_orphans
from hpctrain.launch.channel import CHANNEL_VARIABLE, HEARTBEAT_INTERVAL_S, SECRET_VARIABLE
from hpctrain.launch.rank_env import RankIdentity, find_rank, plan_rank_env
from hpctrain.launch.shim_output import ProgramOutput
from hpctrain.launch.shim_program import Program
from hpctrain.launch.shim_uplink import LAUNCHER, Uplink

FIRST_LOOK_S = 0.1
# A loop that comes back so much later than it meant to was itself held up (a suspended job): its
# program could not move either, and that is no standstill.
HELD_UP_S = 10.0
FLUSH_TURN_S = 1.0
FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SIGNAL = "signal"  # the name in the selector of what signals wake
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
        self._name, self._threads = program[0], environ.get("OMP_NUM_THREADS")
        self._selector = selectors.DefaultSelector()
        self._program = Program(program, environ, rank.size)
        cut_off_s = float(environ.get("HPCTRAIN_CUT_OFF_S") or 60.0)
        self._uplink = Uplink(address, rank, self._selector, cut_off_s)
        self._output = ProgramOutput(self._uplink, self._selector)

    def run(self) -> int:
        """Start the program and pass on what it says until it has ended."""
        self._watch_signals()
        adopt_orphans()
        code = self._start()
        if code is None:
            code = self._watch()
        self._flush()
        return code

    def _watch_signals(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*FORWARDED_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._selector.register(reader, selectors.EVENT_READ, SIGNAL)

    def _start(self) -> int | None:
        """Start the program; return the rank's exit code where it cannot be started."""
        try:
            self._output.watch(self._program.start())
        except OSError as problem:
            error = f"{self._name}: {problem.strerror}"
            self._uplink.send("exit", code=EXIT_NOT_FOUND, error=error)
            return EXIT_NOT_FOUND
        self._uplink.send("start", program_pid=self._program.pid, threads=self._threads)
        return None

    def _watch(self) -> int:
        program = self._program
        now_s = time.monotonic()
        heartbeat_at_s = now_s + HEARTBEAT_INTERVAL_S
        look_every_s = FIRST_LOOK_S
        deadline_s = look_at_s = now_s + look_every_s
        while True:
            now_s = time.monotonic()
            if now_s > deadline_s + HELD_UP_S:
                program.awake_since_s = now_s
            if now_s >= heartbeat_at_s:
                self._beat(now_s)
                heartbeat_at_s = now_s + HEARTBEAT_INTERVAL_S
            if now_s >= look_at_s:
                program.check_mpi_library()
                look_every_s = min(2 * look_every_s, HEARTBEAT_INTERVAL_S)
                look_at_s = now_s + look_every_s
            program.kill_if_due(now_s)
            deadline_s = min(heartbeat_at_s, look_at_s, program.kill_at_s or heartbeat_at_s)
            for key, _ in self._selector.select(max(0.0, deadline_s - now_s)):
                self._handle(key.fd, key.data)
            self._uplink.write_out()
            self._output.keep_pace()
            code = program.poll()
            if code is not None:
                return self._say_exit(code)

    def _beat(self, now_s: float) -> None:
        life = self._program.describe_life(now_s)
        self._uplink.send("beat", step=self._output.last_step, **life)
        if self._uplink.is_cut_off():  # nobody else could end the program
            self._lose_launcher()

    def _handle(self, descriptor: int, source: str) -> None:
        if source == LAUNCHER:
            self._hear_launcher()
        elif source == SIGNAL:
            for number in os.read(descriptor, 64):
                if number != signal.SIGCHLD:
                    self._program.pass_on(number)
        else:
            self._output.read(descriptor)

    def _hear_launcher(self) -> None:
        frames = self._uplink.receive()
        if frames is None:
            self._lose_launcher()
            return
        for frame in frames:
            if frame["kind"] == "signal":
                self._program.pass_on(int(frame["number"]))
            elif frame["kind"] == "stacks" and self._program.is_started:
                self._uplink.send("stacks", text=self._program.describe_stacks())

    def _lose_launcher(self) -> None:
        """The launcher is gone: nobody would ever end this rank, so it ends itself."""
        self._uplink.drop()
        self._program.pass_on(signal.SIGTERM)

    def _say_exit(self, code: int) -> int:
        """End what the program has left, and tell how it ended; return the rank's exit code.

        Args:
            code: as :class:`subprocess.Popen` has it, -n after signal n.
        """
        was_asked = self._program.kill_at_s is not None
        life = self._program.describe_life(time.monotonic())
        self._program.end_descendants()
        self._output.read_what_is_left()
        number = -code if code < 0 else None
        code = code if code >= 0 else 128 - code
        error = self._program.foreign_mpi
        if error:
            code, number = EXIT_FAILED, None
        said = {key: life[key] for key in ("pulse", "still_s")}
        self._uplink.send("exit", code=code, signal=number, error=error, asked=was_asked, **said)
        return code

    def _flush(self) -> None:
        """Send all that waits, however slowly the launcher takes it, then close in order."""
        while self._uplink.unsent_bytes:
            for key, _ in self._selector.select(FLUSH_TURN_S):
                if key.data in (LAUNCHER, SIGNAL):
                    self._handle(key.fd, key.data)
            self._uplink.write_out()
            if self._uplink.is_cut_off():
                self._lose_launcher()
            kill_at_s = self._program.kill_at_s
            if kill_at_s is not None and time.monotonic() >= kill_at_s:
                break  # asked to end, and the launcher does not listen
        self._uplink.close()


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
