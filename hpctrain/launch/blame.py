"""Who failed first? Decides from what ranks say, and touches nothing.

The first failure that arrives is the cause, and what follows it is a consequence. But what arrives
first is often a victim: mpirun ends the others before the culprit's own word is heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpctrain.errors import EXIT_FAILED, FaultyHostError
from hpctrain.launch.channel import HEARTBEAT_INTERVAL_S
from hpctrain.launch.outcome import (
    EXIT_LOST,
    Outcome,
    RankFailure,
    RankState,
    signal_name,
)
from hpctrain.launch.watch import (
    LEFT_EARLY,
    Finding,
    describe_early_exit,
    describe_silence,
)

# Where mpirun ends ranks, and nobody has said why, one that is late with a heartbeat is the cause;
# mpirun needs 7 s at least to miss a host.
MISSED_S = 1.15 * HEARTBEAT_INTERVAL_S
LEFT_JUST_NOW_S = 10.0
ENDED_BY_MPIRUN = "mpirun ended the ranks, and none of them had failed"


class Blame:
    """What is known of an attempt's failure. All times are of one clock, in s."""

    def __init__(self, ranks: Sequence[RankState]) -> None:
        self.ranks = ranks
        self.failure: RankFailure | None = None
        self.trouble: Finding | None = None
        self.accused: RankFailure | None = None
        """Whom `trouble` names; it becomes the failure once all stacks are there."""
        self.refusal = ""
        """What a rank said that rules out another attempt."""
        self._told_first: int | None = None
        self._nobodys_fault = False
        self._somebody_was_asked = False
        self._last_to_leave = 0, float("-inf")  # which rank, with 0, and when

    def take(self, failure: RankFailure) -> bool:
        """Take a failure as the cause, unless there is one; return whether it was the first."""
        if self.failure is not None:
            return False
        self.failure = self.accused or failure
        return True

    def accuse(self, trouble: Finding) -> RankFailure:
        """Remember what a look at all ranks has found; it replaces what was heard from victims."""
        first = trouble.ranks[0] if trouble.ranks else None
        host = "" if first is None else self.ranks[first].host
        code = EXIT_FAILED if trouble.kind == LEFT_EARLY else EXIT_LOST
        self.trouble = trouble
        self.accused = RankFailure(first, host, code, None, trouble.reason, trouble.kind)
        if self.failure is not None:
            self.failure = self.accused
        return self.accused

    def note_error(self, number: int, record: dict[str, Any]) -> None:
        """Remember what a rank says of its own error (event ``train_failed``)."""
        if record.get("error") == FaultyHostError.__name__:
            self._nobodys_fault = True  # every rank says so: who is heard first is chance
        elif self._told_first is None:
            self._told_first = number  # on a busy host others may well leave before it
        # What a rank says after another has failed is that failure's consequence.
        first = self.failure is None or self.failure.rank == number
        if first and not record.get("retryable"):
            self.refusal = self.refusal or str(record.get("message") or "it cannot go on")

    def note_leaving(self, number: int, now_s: float) -> None:
        """Remember that a rank has ended with 0, and that nobody had asked it to."""
        self._last_to_leave = number, now_s

    def judge_exit(self, number: int, frame: dict[str, Any], now_s: float) -> RankFailure:
        """Return whose failure it is that a rank has ended with a code or by a signal.

        Args:
            frame: ``exit``, as the shim sends it.
        """
        code, by = frame["code"], frame.get("signal")
        was_asked = bool(frame.get("asked"))
        self._somebody_was_asked |= was_asked
        cause = self._find_why_mpirun_ended_it(now_s) if was_asked else None
        if cause is not None:
            return cause
        if self._told_first not in (None, number):
            host = self.ranks[self._told_first].host
            return RankFailure(self._told_first, host, code, None, f"exit code {code}")
        if was_asked and not frame.get("error"):
            return RankFailure(None, "", None, None, ENDED_BY_MPIRUN, "ended")
        ended_by = f"signal {by}{signal_name(by)}" if by else f"exit code {code}"
        kind = "refused" if frame.get("error") else "exit"
        reason = frame.get("error") or ended_by
        return RankFailure(number, self.ranks[number].host, code, by, reason, kind)

    def judge_loss(self, number: int, now_s: float) -> RankFailure:
        """Return whose failure it is that a rank's connection has closed without a word."""
        cause = self._find_silent(now_s)
        if cause is None and self._somebody_was_asked:
            cause = self._find_why_mpirun_ended_it(now_s)
        reason = "its connection closed without a word: killed, or its host is gone"
        host = self.ranks[number].host
        return cause or RankFailure(number, host, None, None, reason, "lost")

    def suspects(self, outcome: Outcome) -> tuple[int, ...]:
        """Return the ranks that a failure is laid to: the culprit, and whoever shares its fate."""
        if outcome.failure is None:
            return outcome.unreported_ranks if outcome.state == "failed" else ()
        if self.trouble is not None and outcome.failure is self.accused:
            return self.trouble.ranks
        if outcome.failure.kind == "start":
            return outcome.unreported_ranks
        if outcome.failure.rank is None or self._nobodys_fault:
            return ()
        return (outcome.failure.rank,)

    def _find_why_mpirun_ended_it(self, now_s: float) -> RankFailure | None:
        """Return a rank that is the cause when mpirun ends others, of which we hear first.

        That is one that fell silent, whose host mpirun has missed before us; else the last one that
        left by itself with 0, just now: had it taken leave of MPI, mpirun would not mind.
        """
        silent = self._find_silent(now_s)
        number, left_at_s = self._last_to_leave
        if silent is not None or now_s > left_at_s + LEFT_JUST_NOW_S:
            return silent
        left = self.ranks[number]
        reason = describe_early_exit(left)
        return RankFailure(number, left.host, EXIT_FAILED, None, reason, LEFT_EARLY)

    def _find_silent(self, now_s: float) -> RankFailure | None:
        """Return the quietest rank, where it is late with a heartbeat."""
        running = [n for n, rank in enumerate(self.ranks) if rank.reported and not rank.ended]
        if not running:
            return None
        quietest = min(running, key=lambda n: self.ranks[n].heard_at_s)
        silent_s = now_s - self.ranks[quietest].heard_at_s
        if silent_s <= MISSED_S:
            return None
        host = self.ranks[quietest].host
        return RankFailure(quietest, host, None, None, describe_silence(silent_s), "silent")
