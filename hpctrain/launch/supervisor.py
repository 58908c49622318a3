"""Watch one attempt of one run: start mpirun, hear the ranks, write the run directory, end well.

One thread, one event loop, one writer. What the loop hears from the ranks decides how a run
ended: mpirun's own exit code is that of the first rank to leave, which is often a victim.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hpctrain.errors import EXIT_FAILED, PlanError
from hpctrain.executor import Command, LocalExecutor
from hpctrain.launch.channel import (
    CHANNEL_VARIABLE,
    HEARTBEAT_INTERVAL_S,
    SECRET_VARIABLE,
    STDIO_MARK,
    ChannelError,
    LineBuffer,
    decode_frame,
    new_secret,
)
from hpctrain.launch.meeting import PORT_VARIABLE, find_free_port
from hpctrain.launch.outcome import (
    Console,
    Outcome,
    RankFailure,
    RankState,
    conclude,
    signal_name,
)
from hpctrain.launch.plan import ATTEMPT_NUMBER_VARIABLE, ATTEMPT_VARIABLE, LaunchPlan
from hpctrain.launch.server import ChannelServer, PipeReader
from hpctrain.launch.signals import SAVE_SIGNALS, SignalInbox
from hpctrain.launch.stragglers import StragglerWatch
from hpctrain.launch.sweep import remove_session_folders
from hpctrain.launch.watch import (
    LEFT_EARLY,
    Finding,
    describe_early_exit,
    describe_silence,
    find_trouble,
    has_left_early,
)
from hpctrain.rundir import RunDirectory

# After the last rank has ended, mpirun has nothing left to wait for.
LINGER_LIMIT_S = 20.0
DRAIN_LIMIT_S = 2.0
# From a hang to the end of all ranks: what py-spy may take on a busy host.
STACKS_WAIT_S = 10.0
# A turn of the loop takes a second at most; unless whoever reads our output does not.
LONG_TURN_S = 4.0
# Where mpirun ends ranks, and nobody has said why, one that is late with a heartbeat is the cause;
# mpirun needs 7 s at least to miss a host.
MISSED_S = 1.15 * HEARTBEAT_INTERVAL_S
LEFT_JUST_NOW_S = 10.0
# Of ranks that we end because one is lost, stopped or hung: a machine's fault, as SIGKILL's 137 is
# to whoever decides whether to try again.
EXIT_LOST = 128 + signal.SIGKILL
ORDER_FILES = {"STOP": signal.SIGTERM, "SAVE": signal.SIGUSR1}


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
        self.started_at_s = time.monotonic()
        self.failure: RankFailure | None = None
        self.stop_signal: int | None = None
        self.mpirun: subprocess.Popen[bytes] | None = None
        self.stopping = False
        self.trouble: Finding | None = None
        self.accused: RankFailure | None = None
        self.stacks_awaited: set[int] = set()
        self.last_to_leave = 0, float("-inf")  # which rank, with 0, and when
        self.stragglers = StragglerWatch(plan.np)
        self.save_signal: int | None = None
        self.finished = False
        self.saved_step: int | None = None
        self.refusal = ""
        self.told_first: int | None = None
        self.mpirun_was_signalled = False
        self.signals = SignalInbox(self.selector, self._on_stop_signal)
        self.escalation: list[tuple[float, Callable[[], None]]] = []
        self.stdout_lines = LineBuffer()
        self.stderr_lines = LineBuffer()
        secret = new_secret()
        self.server = ChannelServer(
            self.selector, plan.channel_address, secret, plan.np, self._on_frame, self._on_lost
        )
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
            mpirun = self._start()
            self._loop(mpirun)
            self._drain()
        finally:
            self.signals.unwatch()
            self.server.close()  # a shim whose program still runs now ends it
            self._end_mpirun()
            if self.mpirun is not None and self.mpirun.returncode < 0:
                remove_session_folders(self.mpirun.pid)
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
        self.mpirun = mpirun
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
        all_ended_at_s: float | None = None
        turn_s = time.monotonic()
        while mpirun.poll() is None:
            now_s = time.monotonic()
            if start_by_s is not None and all(rank.reported for rank in self.ranks):
                start_by_s = float("inf")
            if now_s >= start_by_s:
                start_by_s = float("inf")
                self._give_up_starting()
            if all(rank.ended for rank in self.ranks) and all_ended_at_s is None:
                all_ended_at_s = now_s
                self._escalate_later(LINGER_LIMIT_S)
            self._escalate(now_s)
            self.server.drop_unproven()
            self._look_for_orders()
            if now_s - turn_s < LONG_TURN_S:  # else heartbeats wait unread: not the ranks' fault
                self._look_for_trouble(now_s)
            else:
                self._excuse_silence(now_s)
            turn_s = now_s
            wake_up_at_s = min([start_by_s, now_s + 1.0, *(at_s for at_s, _ in self.escalation)])
            self._serve(max(0.0, wake_up_at_s - now_s))

    def _serve(self, timeout_s: float) -> bool:
        """Handle what is ready; return whether there was anything."""
        ready = self.selector.select(timeout_s)
        for key, _ in ready:
            current = self.selector.get_map().get(key.fd)
            if current is not None and current.data is key.data:  # not closed meanwhile
                key.data()
        return bool(ready)

    def _drain(self) -> None:
        """Hear out what ranks said before they ended."""
        heard_at_s = time.monotonic()
        while self.server.connected_ranks or self._pipes_are_open():
            if self._serve(0.05):
                heard_at_s = time.monotonic()
            elif time.monotonic() > heard_at_s + DRAIN_LIMIT_S:
                break  # something that outlived mpirun holds its end open, and says nothing
        for buffer in (self.stdout_lines, self.stderr_lines):
            for line in buffer.flush():
                self._on_launcher_line(line)

    def _pipes_are_open(self) -> bool:
        assert self.mpirun is not None
        open_files = self.selector.get_map()
        return any(pipe in open_files for pipe in (self.mpirun.stdout, self.mpirun.stderr))

    # -- ending --------------------------------------------------------------------------------

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
        self._fail(RankFailure(missing[0], first.host, EXIT_FAILED, None, reason, "start"))

    def _look_for_orders(self) -> None:
        """Do what a file in the run's folder asks for: for whoever cannot send a signal."""
        for name, number in ORDER_FILES.items():
            if self.run_directory.take_order(name):
                self.console.warn(f"{name}: found in {self.run_directory.path}")
                self._on_stop_signal(number)

    def _look_for_trouble(self, now_s: float) -> None:
        """Find a rank that is gone, stopped or hung, for which MPI would wait for ever."""
        if self.stopping or self.save_signal is not None or self.trouble is not None:
            return
        found = find_trouble(self.ranks, now_s, self.plan.hang_timeout_s)
        if found is not None:
            self._act_on(found)

    def _excuse_silence(self, now_s: float) -> None:
        """Count from now on: we did not listen, or the whole job, hosts and all, was suspended."""
        for rank in self.ranks:
            rank.heard_at_s = max(rank.heard_at_s, now_s) if rank.reported else rank.heard_at_s

    def _act_on(self, trouble: Finding) -> None:
        """Say what is wrong, ask where the ranks are if that tells more, and end them all."""
        self.trouble = trouble
        named = ", ".join(f"rank {n} on {self.ranks[n].host}" for n in trouble.ranks[:4])
        self.console.warn(f"{named or 'no rank alone'}: {trouble.reason}")
        self.run_directory.event(
            "alert", kind=trouble.kind, ranks=list(trouble.ranks),
            hosts=sorted({self.ranks[n].host for n in trouble.ranks}), reason=trouble.reason,
        )  # fmt: skip
        first = trouble.ranks[0] if trouble.ranks else 0
        host = self.ranks[first].host
        code = EXIT_FAILED if trouble.kind == LEFT_EARLY else EXIT_LOST
        self.accused = accused = RankFailure(first, host, code, None, trouble.reason, trouble.kind)
        if self.failure is not None:
            self.failure = accused  # what was heard first was a victim
        elif trouble.needs_stacks:
            self.stacks_awaited = set(self.server.connected_ranks)
            self.server.ask_for_stacks()
            give_up_at_s = time.monotonic() + STACKS_WAIT_S
            self.escalation.append((give_up_at_s, lambda: self._fail(accused)))
        else:
            self._fail(accused)

    def _on_stacks(self, rank_number: int, text: str) -> None:
        self.run_directory.write_stacks(rank_number, text)
        self.stacks_awaited.discard(rank_number)
        if self.accused is not None and not self.stacks_awaited:
            self._fail(self.accused)

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

    def _fail(self, failure: RankFailure) -> None:
        """Take the first failure as the cause; whatever follows is its consequence."""
        if self.failure is None and self.stop_signal is None:
            self.failure = self.accused or failure
            self._stop()

    def _ask_to_save(self, number: int) -> None:
        """Have the ranks save and leave by themselves; if they do not in time, stop them."""
        self.save_signal = number
        limit_s = self.plan.save_timeout_s
        self.console.warn(
            f"{signal.Signals(number).name}: the ranks were asked to save and leave; they have "
            f"{limit_s:g} s (launch.save_timeout_s)"
        )
        self.server.send_signal(signal.SIGUSR1)
        self.escalation.append((time.monotonic() + limit_s, self._give_up_saving))

    def _give_up_saving(self) -> None:
        if self.stop_signal is None and self.failure is None:
            self.console.warn("the ranks did not leave in time (launch.save_timeout_s)")
            self._stop_by(signal.SIGTERM)

    def _stop_by(self, number: int) -> None:
        self.stop_signal = number
        self.failure = None
        self._stop()

    def _stop(self) -> None:
        """Ask politely through the shims, then mpirun, then insist."""
        self.stopping = True
        self.server.send_signal(signal.SIGTERM)
        if not self.server.connected_ranks:
            self._signal_mpirun(signal.SIGTERM)
        self._escalate_later(self.plan.grace_s + 1.0)

    def _escalate_later(self, delay_s: float) -> None:
        now_s = time.monotonic()
        self.escalation += [
            (now_s + delay_s, lambda: self._signal_mpirun(signal.SIGTERM)),
            (now_s + delay_s + self.plan.grace_s, lambda: self._signal_mpirun(signal.SIGKILL)),
        ]

    def _escalate(self, now_s: float) -> None:
        due = [action for at_s, action in self.escalation if at_s <= now_s]
        self.escalation = [entry for entry in self.escalation if entry[0] > now_s]
        for action in due:
            action()

    def _signal_mpirun(self, number: int) -> None:
        if self.mpirun is not None and self.mpirun.poll() is None:
            self.mpirun_was_signalled = True
            self.mpirun.send_signal(number)

    def _end_mpirun(self) -> None:
        """End mpirun where an error has ended the loop before it."""
        if self.mpirun is None or self.mpirun.poll() is not None:
            return
        self.mpirun.terminate()
        try:
            self.mpirun.wait(self.plan.grace_s)
        except subprocess.TimeoutExpired:
            self.mpirun.kill()
            self.mpirun.wait()

    def _outcome(self, mpirun_code: int) -> Outcome:
        outcome = conclude(
            self.ranks, self.failure, mpirun_code,
            mpirun_was_signalled=self.mpirun_was_signalled, stop_signal=self.stop_signal,
            save_signal=self.save_signal, finished=self.finished, refusal=self.refusal,
        )  # fmt: skip
        return replace(
            outcome,
            duration_s=time.monotonic() - self.started_at_s,
            attempt_id=self.attempt_id,
            saved_step=self.saved_step,
            suspects=self._suspects(outcome),
        )

    def _suspects(self, outcome: Outcome) -> tuple[int, ...]:
        """Return the ranks that a failure is laid to: the culprit, and whoever shares its fate."""
        if outcome.failure is None:
            return outcome.silent_ranks if outcome.state == "failed" else ()
        if self.trouble is not None and outcome.failure is self.accused:
            return self.trouble.ranks
        return outcome.silent_ranks if outcome.failure.kind == "start" else (outcome.failure.rank,)

    # -- what is heard -------------------------------------------------------------------------

    def _on_stop_signal(self, number: int) -> None:
        asks_to_save = number in SAVE_SIGNALS
        if self.stop_signal is None and self.save_signal is None:
            # Before all ranks have begun there is nothing to save.
            begun = all(rank.reported for rank in self.ranks) and self.failure is None
            if asks_to_save and self.plan.saves_on_signal and begun:
                self._ask_to_save(number)
            else:
                self._stop_by(signal.SIGTERM if asks_to_save else number)
        elif number == signal.SIGUSR1:
            pass  # it is ending already
        elif self.stop_signal is not None or number == self.save_signal == signal.SIGTERM:
            self.stop_signal = self.stop_signal or number
            self.server.send_signal(signal.SIGKILL)  # asked twice: at once
            self._signal_mpirun(signal.SIGKILL)
        elif number == signal.SIGTERM:
            self.save_signal = number  # the first SIGTERM, after SIGUSR1: they are saving
        else:
            self._stop_by(number)

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
            if self.stopping:  # it came late to a run that is over: tell it as well
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
        if name == "checkpoint" and isinstance(step, int):
            self.saved_step = max(step, self.saved_step or 0)
        if name == "train_failed" and self.told_first is None:
            self.told_first = rank_number  # on a busy host others may well leave before it
        # What a rank says after another has failed is that failure's consequence.
        first = self.failure is None or self.failure.rank == rank_number
        if name == "train_failed" and first and not record.get("retryable"):
            self.refusal = self.refusal or str(record.get("message") or "it cannot go on")

    def _on_exit(self, rank_number: int, frame: dict[str, Any]) -> None:
        rank = self.ranks[rank_number]
        rank.note_exit(frame)
        code, number = frame["code"], frame.get("signal")
        self._record(rank_number, "rank_exit", exit_code=code, signal=number)
        was_asked = bool(frame.get("asked"))
        if code != 0:
            ended_by = f"signal {number}{signal_name(number)}" if number else f"exit code {code}"
            reason = frame.get("error") or ended_by
            kind = "refused" if frame.get("error") else "exit"
            failure = RankFailure(rank_number, rank.host, code, number, reason, kind)
            if self.told_first not in (None, rank_number):
                host = self.ranks[self.told_first].host
                failure = RankFailure(self.told_first, host, code, None, f"exit code {code}")
            self._fail((self._find_why_mpirun_ended_it() if was_asked else None) or failure)
        elif not was_asked:
            self.last_to_leave = rank_number, time.monotonic()
            if has_left_early(rank) and self.stop_signal is None and self.save_signal is None:
                self._act_on(Finding(LEFT_EARLY, (rank_number,), describe_early_exit(rank)))

    def _find_why_mpirun_ended_it(self) -> RankFailure | None:
        """Return a rank that is the cause when mpirun ends others, of which we hear first.

        That is one that fell silent, whose host mpirun has missed before us; else the last one that
        left by itself with 0, just now: had it taken leave of MPI, mpirun would not mind.
        """
        running = [n for n, rank in enumerate(self.ranks) if rank.reported and not rank.ended]
        if running:
            quietest = min(running, key=lambda n: self.ranks[n].heard_at_s)
            silent_s = time.monotonic() - self.ranks[quietest].heard_at_s
            if silent_s > MISSED_S:
                host = self.ranks[quietest].host
                reason = describe_silence(silent_s)
                return RankFailure(quietest, host, None, None, reason, "silent")
        number, left_at_s = self.last_to_leave
        if time.monotonic() > left_at_s + LEFT_JUST_NOW_S:
            return None
        left = self.ranks[number]
        reason = describe_early_exit(left)
        return RankFailure(number, left.host, EXIT_FAILED, None, reason, LEFT_EARLY)

    def _on_lost(self, rank_number: int) -> None:
        rank = self.ranks[rank_number]
        if rank.ended or self.stop_signal is not None or self.failure is not None:
            return
        cause = self._find_why_mpirun_ended_it()
        rank.ended = True
        self._record(rank_number, "rank_exit", exit_code=None, signal=None)
        reason = "its connection closed without a word: killed, or its host is gone"
        self._fail(cause or RankFailure(rank_number, rank.host, None, None, reason, "lost"))

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
