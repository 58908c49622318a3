"""What the supervisor knows of a rank, tells the console, and concludes of an attempt."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hpctrain.errors import EXIT_FAILED, EXIT_OK, EXIT_RESUMABLE, EXIT_USAGE
from hpctrain.launch.rank_life import STOPPED_STATE
from hpctrain.pulse import Pulse

# Of ranks that are lost, or that we end because they are stopped or hung: a machine's fault, as
# SIGKILL's 137 is to whoever decides whether to try again.
EXIT_LOST = 128 + signal.SIGKILL
# Of a shell, sysexits and Click: the same words would be refused again.
FINAL_EXIT_CODES = {EXIT_USAGE: "usage", 126: "it cannot be executed", 127: "it is not there"}


class Console(Protocol):
    """What the supervisor tells the person who watches."""

    def rank_output(self, rank: int, host: str, stream: str, data: bytes) -> None: ...
    def event(self, rank: int, record: dict[str, Any]) -> None: ...
    def launcher_output(self, line: bytes) -> None: ...
    def warn(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class RankFailure:
    """The first rank that failed, or what happened where it is no rank's fault (`rank` is None).

    `exit_code` is None where it vanished without a word.

    `kind`: exit (by code or signal), refused (by its shim: it cannot run), lost (its connection
    closed), silent, stopped, hang, left early (:mod:`hpctrain.launch.watch`), start (it never
    reported), or ended (by mpirun, and nobody knows why).
    """

    rank: int | None
    host: str
    exit_code: int | None
    signal: int | None
    reason: str
    kind: str = "exit"

    @property
    def in_words(self) -> str:
        """Who, where, and why."""
        return (
            self.reason if self.rank is None else f"rank {self.rank} on {self.host}: {self.reason}"
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    Args:
        state: done, failed, stopped (by a signal to the launcher) or resumable (the same, after the
            ranks have saved).
        unreported_ranks: those that never reported.
        stopped_early: a signal stopped it before all ranks had reported; some may have since.
        suspects: the ranks that the failure is laid to.
        step: the highest that was reported.
        saved_step: of the newest checkpoint that was completed.
        retryable: whether another attempt may get further.
        final_reason: why not, where it failed.
    """

    state: str
    exit_code: int
    duration_s: float
    failure: RankFailure | None = None
    unreported_ranks: tuple[int, ...] = ()
    stop_signal: int | None = None
    needs_sweep: bool = False
    attempt_id: str = ""
    step: int | None = None
    suspects: tuple[int, ...] = ()
    saved_step: int | None = None
    retryable: bool = False
    final_reason: str = ""
    stopped_early: bool = False


@dataclass(slots=True)
class RankState:
    """What one rank has said so far."""

    host: str
    reported: bool = False
    ended: bool = False
    exit_code: int | None = None
    step: int | None = None
    heard_at_s: float = 0.0
    pulse: Pulse | None = None
    """Of the last heartbeat; None for a program that has none."""
    still_s: float = 0.0
    """How long the pulse had not changed when that was sent."""
    stopped_since_s: float | None = None
    """Since when each heartbeat has said that the program is stopped."""
    stopped_s: float = 0.0
    """How long that was when the latest came."""
    longest_still_s: float = 0.0
    """The longest that a heartbeat has said so before the pulse changed again. Shims count the time
    that they were awake: a host that was suspended as a whole has not stood still."""

    def note_beat(self, frame: dict[str, Any], now_s: float) -> None:
        """Remember a heartbeat, as the shim sends it (``Program.describe_life``)."""
        self.note_step(frame.get("step"))
        self._note_pulse(frame)
        if frame.get("state") != STOPPED_STATE:
            self.stopped_since_s = None
        elif self.stopped_since_s is None:
            self.stopped_since_s = now_s
        self.stopped_s = 0.0 if self.stopped_since_s is None else now_s - self.stopped_since_s

    def note_exit(self, frame: dict[str, Any]) -> None:
        """Remember how the program ended, and what it was at."""
        self.ended, self.exit_code = True, frame["code"]
        self._note_pulse(frame)

    def _note_pulse(self, frame: dict[str, Any]) -> None:
        if frame.get("pulse") is not None:
            before, self.pulse = self.pulse, Pulse(*frame["pulse"])
            if before is not None and before.changes != self.pulse.changes:
                self.longest_still_s = max(self.longest_still_s, self.still_s)
            self.still_s = float(frame["still_s"])
            self.note_step(self.pulse.step)

    def note_step(self, step: Any) -> None:
        """Remember a step; foreign programs may report anything."""
        if isinstance(step, int):
            self.step = step


def conclude(
    ranks: Sequence[RankState], failure: RankFailure | None, mpirun_code: int, *,
    mpirun_was_signalled: bool, stop_signal: int | None, save_signal: int | None, finished: bool,
    left_saved: bool, refusal: str,
) -> Outcome:  # fmt: skip
    """Return how an attempt ended, from what the ranks said before what mpirun says.

    Args:
        mpirun_code: as Popen has it, negative after a signal.
        mpirun_was_signalled: by us.
        stop_signal: what the launcher was ended by.
        save_signal: what it asked the ranks to save by.
        finished: whether the training had reached its last step.
        left_saved: whether the ranks say that they have saved and leave before it.
        refusal: what a rank said that rules out another attempt.
    """
    if mpirun_code < 0 and not mpirun_was_signalled:
        failure = None  # somebody ended mpirun: what the ranks then said is its consequence
    mpirun_code = mpirun_code if mpirun_code >= 0 else 128 - mpirun_code
    if stop_signal is not None:
        state, code = "stopped", 128 + stop_signal
    elif failure is not None:
        # mpirun's code is a victim's.
        state, code = "failed", failure.exit_code or EXIT_LOST
    elif all(rank.exit_code == 0 for rank in ranks):
        # Every rank said so itself, whatever mpirun says.
        # A scheduler may signal ranks past the launcher.
        save_signal = save_signal or (signal.SIGUSR1 if left_saved else None)
        saved = save_signal is not None and not finished
        state, code = ("resumable", EXIT_RESUMABLE) if saved else ("done", EXIT_OK)
    else:
        # Where ranks never began, whatever mpirun says is no rank's code (255, 213, also 0).
        started = all(rank.reported for rank in ranks)
        code = mpirun_code if started else EXIT_FAILED
        state = "done" if code == EXIT_OK else "failed"
    final_reason = find_final_reason(failure, refusal) if state == "failed" else ""
    return Outcome(
        state=state,
        exit_code=code,
        duration_s=0.0,
        failure=failure,
        unreported_ranks=tuple(n for n, rank in enumerate(ranks) if not rank.reported),
        stop_signal=stop_signal or save_signal,
        needs_sweep=state not in ("done", "resumable"),
        step=max((rank.step for rank in ranks if rank.step is not None), default=None),
        retryable=state != "done" and not final_reason,
        final_reason=final_reason,
    )


def find_final_reason(failure: RankFailure | None, refusal: str) -> str:
    """Return why no other attempt would end otherwise, "" where one might.

    An error that hpctrain words itself needs a person; a crash, a signal or a lost host does not.
    """
    if refusal:
        return refusal
    if failure is None:
        return ""
    if failure.kind == "refused":
        return failure.reason
    meaning = FINAL_EXIT_CODES.get(failure.exit_code or 0)
    return f"exit code {failure.exit_code} ({meaning})" if meaning else ""


def signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return ""
