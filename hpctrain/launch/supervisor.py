"""Watch one attempt of one run: start mpirun, hear the ranks, write the run directory, end well.

One thread, one event loop, one writer. What the loop hears from the ranks decides how a run
ended (:mod:`hpctrain.launch.blame`): mpirun's own exit code is that of the first rank to leave,
which is often a victim.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from dataclasses import replace
from typing import Any

from hpctrain.errors import PlanError
from hpctrain.executor import Command, LocalExecutor
from hpctrain.launch.blame import Blame
from hpctrain.launch.channel import (
    CHANNEL_VARIABLE,
    SECRET_VARIABLE,
    STDIO_MARK,
    ChannelError,
    LineBuffer,
    decode_frame,
    new_secret,
)
from hpctrain.launch.ending import Ending
from hpctrain.launch.meeting import PORT_VARIABLE, find_free_port
from hpctrain.launch.outcome import EXIT_LOST, Console, Outcome, RankFailure, RankState, conclude
from hpctrain.launch.plan import ATTEMPT_NUMBER_VARIABLE, ATTEMPT_VARIABLE, LaunchPlan
from hpctrain.launch.server import ChannelServer, PipeReader
from hpctrain.launch.signals import SignalInbox
from hpctrain.launch.stragglers import StragglerWatch
from hpctrain.launch.sweep import remove_session_folders
from hpctrain.launch.watch import (
    LEFT_EARLY,
    Finding,
    describe_early_exit,
    find_trouble,
    has_left_early,
)
from hpctrain.rundir import RunDirectory

# After the last rank has ended, mpirun has nothing left to wait for.
LINGER_LIMIT_S = 20.0
# What outlives mpirun and holds its end of a pipe open: how long it may be silent, and talk.
DRAIN_LIMIT_S, DRAIN_TALK_LIMIT_S = 2.0, 30.0
# From a hang to the end of all ranks: what py-spy may take on a busy host.
STACKS_WAIT_S = 10.0
# A turn of the loop takes a second at most; unless whoever reads our output does not.
LONG_TURN_S = 4.0
# The run's folder may be on a slow file system, and turns come with every frame.
ORDERS_EVERY_S = 1.0


class Supervisor:
    """Run one attempt, the run's `number`-th, to its end."""

    def __init__(
        self, plan: LaunchPlan, run: RunDirectory, console: Console, number: int = 1
    ) -> None:
        self.plan = plan
        self.run_directory = run
        self.console = console
        self.attempt_id = f"{run.path.name}.{os.urandom(6).hex()}"
        self.selector = selectors.DefaultSelector()
        self.ranks = [RankState(host) for host in plan.rank_hosts]
        self.blame = Blame(self.ranks)
        self.stragglers = StragglerWatch(plan.np)
        self.started_at_s = time.monotonic()
        self.orders_at_s = self.started_at_s
        self.stacks_awaited: set[int] = set()
        self.finished = self.left_saved = self.stopped_early = False
        self.saved_step: int | None = None
        self.signals = SignalInbox(self.selector, self._on_stop_signal)
        self.stdout_lines = LineBuffer()
        self.stderr_lines = LineBuffer()
        secret = new_secret()
        self.server = ChannelServer(
            self.selector, plan.channel_address, secret, plan.np, self._on_frame, self._on_lost
        )
        self.ending = Ending(plan, self.server, console)
        self.live_env = {
            CHANNEL_VARIABLE: self.server.address,
            SECRET_VARIABLE: secret,
            ATTEMPT_VARIABLE: self.attempt_id,
            ATTEMPT_NUMBER_VARIABLE: str(number),
        }
        if plan.meeting_port is not None:
            self.live_env[PORT_VARIABLE] = str(find_free_port(plan.meeting_port))

    def run(self) -> Outcome:
        """Start mpirun and return when it, and every rank that can be reached, has ended."""
        self.signals.watch()
        try:
            mpirun = self.ending.mpirun = self._start()
            self._loop(mpirun)
            self._drain(mpirun)
        finally:
            self.server.close()  # a shim whose program still runs now ends it
            self.ending.end_mpirun()
            started = self.ending.mpirun
            if started is not None and started.returncode < 0:
                remove_session_folders(started.pid)
            self.signals.unwatch()  # last: one that came meanwhile is raised here
        return self._outcome(mpirun.returncode)

    # -- starting ------------------------------------------------------------------------------

    def _start(self) -> subprocess.Popen[bytes]:
        planned = self.plan.command
        try:
            mpirun = LocalExecutor().start(
                Command(planned.argv, {**planned.env, **self.live_env}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ours alone to signal: a terminal's Ctrl-C would otherwise reach it as well.
                new_session=True,
                parent_death_signal=signal.SIGTERM,
            )
        except OSError as problem:
            raise PlanError(
                f"{planned.argv[0]}: cannot be started: {problem.strerror}; expected mpirun."
            ) from problem
        for pipe, buffer in (
            (mpirun.stdout, self.stdout_lines),
            (mpirun.stderr, self.stderr_lines),
        ):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            reader = PipeReader(self.selector, pipe.fileno(), buffer, self._on_launcher_line)
            self.selector.register(pipe, selectors.EVENT_READ, reader.read)
        return mpirun

    # -- the loop ------------------------------------------------------------------------------

    def _loop(self, mpirun: subprocess.Popen[bytes]) -> None:
        start_by_s = self.started_at_s + self.plan.start_timeout_s
        all_have_ended = False
        turn_s = time.monotonic()
        while mpirun.poll() is None:
            now_s = time.monotonic()
            if start_by_s is not None and all(rank.reported for rank in self.ranks):
                start_by_s = float("inf")
            if now_s >= start_by_s:
                start_by_s = float("inf")
                self._give_up_starting()
            if all(rank.ended for rank in self.ranks) and not all_have_ended:
                all_have_ended = True
                self.ending.insist_after(LINGER_LIMIT_S)
            self.ending.go_on(now_s)
            self.server.drop_unproven()
            self._look_for_orders(now_s)
            if now_s - turn_s < LONG_TURN_S:  # else heartbeats wait unread: not the ranks' fault
                self._look_for_trouble(now_s)
            else:
                self._excuse_silence(now_s)
            turn_s = now_s
            wake_up_at_s = min(start_by_s, now_s + 1.0, self.ending.next_at_s())
            self._serve(max(0.0, wake_up_at_s - now_s))

    def _serve(self, timeout_s: float) -> bool:
        """Handle what is ready; return whether there was anything."""
        ready = self.selector.select(timeout_s)
        for key, _ in ready:
            current = self.selector.get_map().get(key.fd)
            if current is not None and current.data is key.data:  # not closed meanwhile
                key.data()
        return bool(ready)

    def _drain(self, mpirun: subprocess.Popen[bytes]) -> None:
        """Hear out what ranks said before they ended."""
        pipes = (mpirun.stdout, mpirun.stderr)
        heard_at_s = time.monotonic()
        give_up_at_s = heard_at_s + DRAIN_TALK_LIMIT_S
        while self.server.connected_ranks or any(p in self.selector.get_map() for p in pipes):
            now_s = time.monotonic()
            if now_s > heard_at_s + DRAIN_LIMIT_S or now_s > give_up_at_s:
                break
            if self._serve(0.05):
                heard_at_s = time.monotonic()
        for buffer in (self.stdout_lines, self.stderr_lines):
            for line in buffer.flush():
                self._on_launcher_line(line)

    # -- looking -------------------------------------------------------------------------------

    def _give_up_starting(self) -> None:
        missing = [number for number, rank in enumerate(self.ranks) if not rank.reported]
        hosts = sorted({self.ranks[number].host for number in missing})
        shown = ", ".join(map(str, missing[:8])) + (" …" if len(missing) > 8 else "")
        self.console.warn(
            f"{len(missing)} of {self.plan.np} ranks did not report within "
            f"{self.plan.start_timeout_s:g} s (launch.start_timeout_s): rank {shown} on "
            f"{', '.join(hosts)}"
        )
        first = self.ranks[missing[0]]
        reason = f"did not report within {self.plan.start_timeout_s:g} s"
        self._fail(RankFailure(missing[0], first.host, EXIT_LOST, None, reason, "start"))

    def _look_for_orders(self, now_s: float) -> None:
        """Do what a file in the run's folder asks for: for whoever cannot send a signal."""
        if now_s < self.orders_at_s:
            return
        self.orders_at_s = now_s + ORDERS_EVERY_S
        for name, number in self.run_directory.take_orders():
            self.console.warn(f"{name}: found in {self.run_directory.path}")
            self._on_stop_signal(number)

    def _look_for_trouble(self, now_s: float) -> None:
        """Find a rank that is gone, stopped or hung, for which MPI would wait for ever."""
        if self.ending.has_begun or self.ending.is_asked or self.blame.trouble is not None:
            return
        found = find_trouble(self.ranks, now_s, self.plan.hang_timeout_s)
        if found is not None:
            self._act_on(found)

    def _excuse_silence(self, now_s: float) -> None:
        """Count from now on: we did not listen, or the whole job, hosts and all, was suspended."""
        for rank in self.ranks:
            rank.heard_at_s = max(rank.heard_at_s, now_s) if rank.reported else rank.heard_at_s

    def _look_for_stragglers(self, rank_number: int, record: dict[str, Any]) -> None:
        host = self.ranks[rank_number].host
        for found in self.stragglers.note(rank_number, host, record):
            self.run_directory.event(
                "alert", kind=found.kind, ranks=list(found.ranks),
                hosts=[found.host] if found.host else [], factor=round(found.factor, 3),
                cause=found.cause or None, reason=found.text,
            )  # fmt: skip
            if found.kind != "recovered":
                self.console.warn(found.text)

    # -- ending --------------------------------------------------------------------------------

    def _act_on(self, trouble: Finding) -> None:
        """Say what is wrong, ask where the ranks are if that tells more, and end them all."""
        had_failed = self.blame.failure is not None
        accused = self.blame.accuse(trouble)
        named = ", ".join(f"rank {n} on {self.ranks[n].host}" for n in trouble.ranks[:4])
        self.console.warn(f"{named or 'no rank alone'}: {trouble.reason}")
        self.run_directory.event(
            "alert", kind=trouble.kind, ranks=list(trouble.ranks),
            hosts=sorted({self.ranks[n].host for n in trouble.ranks}), reason=trouble.reason,
        )  # fmt: skip
        if had_failed:
            return  # what was heard first was a victim, and all are being ended
        if trouble.needs_stacks:
            self.stacks_awaited = set(self.server.connected_ranks)
            self.server.ask_for_stacks()
            self.ending.do_after(STACKS_WAIT_S, lambda: self._fail(accused))
        else:
            self._fail(accused)

    def _on_stacks(self, rank_number: int, text: str) -> None:
        self.run_directory.write_stacks(rank_number, text)
        self.stacks_awaited.discard(rank_number)
        if self.blame.accused is not None and not self.stacks_awaited:
            self._fail(self.blame.accused)

    def _fail(self, failure: RankFailure) -> None:
        if self.ending.stop_signal is None and self.blame.take(failure):
            self.ending.begin()

    def _on_stop_signal(self, number: int) -> None:
        # Before all ranks have begun there is nothing to save.
        begun = all(rank.reported for rank in self.ranks)
        living = {n for n, rank in enumerate(self.ranks) if rank.reported and not rank.ended}
        self.ending.on_signal(
            number,
            may_save=begun and self.blame.failure is None,
            unheard=not living <= self.server.connected_ranks,
        )
        self.stopped_early |= not begun and self.ending.stop_signal is not None

    def _outcome(self, mpirun_code: int) -> Outcome:
        ending = self.ending
        outcome = conclude(
            self.ranks, self.blame.failure or self.blame.accused, mpirun_code,
            mpirun_was_signalled=ending.mpirun_was_signalled, stop_signal=ending.stop_signal,
            save_signal=ending.save_signal, finished=self.finished, left_saved=self.left_saved,
            refusal=self.blame.refusal,
        )  # fmt: skip
        return replace(
            outcome,
            duration_s=time.monotonic() - self.started_at_s,
            attempt_id=self.attempt_id,
            saved_step=self.saved_step,
            suspects=self.blame.suspects(outcome),
            stopped_early=self.stopped_early,
        )

    # -- what is heard -------------------------------------------------------------------------

    def _on_frame(self, rank_number: int, frame: dict[str, Any]) -> None:
        rank = self.ranks[rank_number]
        rank.heard_at_s = time.monotonic()
        kind = frame["kind"]
        if kind == "output":
            data = frame["data"].encode("latin-1")
            self.run_directory.log(rank_number, data)
            self.console.rank_output(rank_number, rank.host, frame["stream"], data)
        elif kind == "event":
            record = frame["record"]
            if record.get("event") != "checkpoint":  # complete some steps after its own
                rank.note_step(record.get("step"))
            self._note(rank_number, record)
            self.run_directory.record(rank_number, record)
            if record.get("event") == "rank_step":
                self._look_for_stragglers(rank_number, record)
            self.console.event(rank_number, record)
        elif kind == "beat":
            rank.note_beat(frame, rank.heard_at_s)
        elif kind == "stacks":
            self._on_stacks(rank_number, frame["text"])
        elif kind == "hello":
            rank.host, rank.reported = frame["host"], True
            if self.ending.has_begun:  # it came late to a run that is over: tell it as well
                self.server.send_signal(signal.SIGTERM)
            fields = {key: frame.get(key) for key in ("host", "pid", "local_rank")}
            self._record(rank_number, "rank_started", **fields)
            if frame.get("fallback"):
                self.console.warn(
                    f"rank {rank_number} on {rank.host} cannot reach the launcher at "
                    f"{frame['fallback']}; its reports come through mpirun instead"
                )
        elif kind == "start":
            self._record(
                rank_number, "rank_program", pid=frame["program_pid"], threads=frame["threads"]
            )
        elif kind == "exit":
            self._on_exit(rank_number, frame)

    def _note(self, rank_number: int, record: dict[str, Any]) -> None:
        """Remember what decides how the attempt is judged."""
        name, step = record.get("event"), record.get("step")
        self.finished |= name == "train_finished"
        self.left_saved |= name == "train_stopped"
        if name == "checkpoint" and isinstance(step, int):
            self.saved_step = max(step, self.saved_step or 0)
        if name == "train_failed":
            self.blame.note_error(rank_number, record)

    def _on_exit(self, rank_number: int, frame: dict[str, Any]) -> None:
        rank, now_s = self.ranks[rank_number], time.monotonic()
        rank.note_exit(frame)
        self._record(rank_number, "rank_exit", exit_code=frame["code"], signal=frame.get("signal"))
        if frame["code"] != 0:
            self._fail(self.blame.judge_exit(rank_number, frame, now_s))
        elif not frame.get("asked"):
            self.blame.note_leaving(rank_number, now_s)
            if has_left_early(rank) and not self.ending.is_asked:
                self._act_on(Finding(LEFT_EARLY, (rank_number,), describe_early_exit(rank)))

    def _on_lost(self, rank_number: int) -> None:
        rank = self.ranks[rank_number]
        if rank.ended or self.ending.stop_signal is not None or self.blame.failure is not None:
            return
        failure = self.blame.judge_loss(rank_number, time.monotonic())
        rank.ended = True
        self._record(rank_number, "rank_exit", exit_code=None, signal=None)
        self._fail(failure)

    def _on_launcher_line(self, line: bytes) -> None:
        if line.startswith(STDIO_MARK):
            try:
                frame = decode_frame(line[len(STDIO_MARK) :])
                if 0 <= frame.get("rank", -1) < self.plan.np:
                    self._on_frame(frame["rank"], frame)
                    return
            except (ChannelError, KeyError, TypeError):
                pass  # cut by mpirun: shown as it came
        self.run_directory.log_launcher(line + b"\n")
        self.console.launcher_output(line)

    def _record(self, rank_number: int, event: str, **fields: Any) -> None:
        record = {"schema": 1, "event": event, "time_s": round(time.time(), 6), **fields}
        self.run_directory.record(rank_number, record)
