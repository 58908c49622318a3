"""Is a run that failed to be tried again? Pure.

What is known of an attempt comes in as its :class:`~hpctrain.launch.outcome.Outcome`;
`restart.py` acts on what is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hpctrain.launch.outcome import Outcome

MOST_WITHOUT_PROGRESS = 3
# Before each restart; later ones of a run that gets nowhere wait longer.
BACKOFF_S = (3.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come, over all attempts.

    Args:
        step: the highest step that was reported; None where none ever was.
        saved_step: that of the newest complete checkpoint.
        stalled: attempts in a row, after the first, that raised neither.
        attempts: how many there were.
    """

    step: int | None = None
    saved_step: int | None = None
    stalled: int = 0
    attempts: int = 0

    def after(self, outcome: Outcome) -> Progress:
        """Return the progress with one more attempt.

        >>> first = Progress().after(Outcome("failed", 1, 9.0, step=5))
        >>> first.after(Outcome("failed", 1, 9.0, step=5)).stalled
        1
        """
        rose = _is_above(outcome.step, self.step) or _is_above(outcome.saved_step, self.saved_step)
        return Progress(
            step=_larger(outcome.step, self.step),
            saved_step=_larger(outcome.saved_step, self.saved_step),
            stalled=0 if rose or self.attempts == 0 else self.stalled + 1,
            attempts=self.attempts + 1,
        )

    @property
    def backoff_s(self) -> float:
        """How long to wait before the next attempt."""
        return BACKOFF_S[min(self.stalled, len(BACKOFF_S) - 1)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to try again: `goes_on`, and else why not, if there is anything to say.

    `exhausted`: nothing but a person's work would change how it ends.
    """

    goes_on: bool
    reason: str = ""
    exhausted: bool = False


def decide_restart(
    outcome: Outcome, progress: Progress, restarts: int, max_restarts: int, *, says_steps: bool
) -> Verdict:
    """Decide after an attempt.

    Args:
        progress: with that attempt.
        restarts: how many there were.
        says_steps: whether the program reports steps, so that no step means no progress.
    """
    # What fails while it saves and leaves, as a scheduler has asked, is not wanted back.
    if outcome.state != "failed" or outcome.stop_signal is not None or max_restarts == 0:
        return Verdict(False)
    if not outcome.retryable:
        return Verdict(False, f"not tried again: {outcome.final_reason}")
    knows_progress = says_steps or progress.step is not None
    if knows_progress and progress.stalled >= MOST_WITHOUT_PROGRESS:
        at = "its first step" if progress.step is None else f"step {progress.step}"
        saved = "" if progress.saved_step is None else f" (saved: step {progress.saved_step})"
        return Verdict(
            False,
            f"given up: {progress.stalled} restarts in a row got no further than {at}{saved}",
            exhausted=True,
        )
    if restarts >= max_restarts:
        how_many = "1 restart is" if max_restarts == 1 else f"{max_restarts} restarts are"
        return Verdict(False, f"given up: {how_many} used up (--max-restarts)")
    return Verdict(True)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An attempt of which something may be left.

    Args:
        ended_at_s: when it failed (Unix time); None where nobody wrote how it ended.
    """

    number: int
    attempt_id: str
    hosts: tuple[str, ...]
    ended_at_s: float | None = None


def find_unfinished(
    events: Iterable[Mapping[str, Any]], failed_since_s: float = math.inf
) -> Unfinished | None:
    """Return a run's latest attempt, if its launcher died before it ended, or it has just failed.

    Args:
        failed_since_s: from when on a failure counts (Unix time).

    >>> find_unfinished([{"event": "attempt", "attempt": 1, "attempt_id": "r.1", "hosts": ["a"]}])
    Unfinished(number=1, attempt_id='r.1', hosts=('a',), ended_at_s=None)
    """
    latest, ended_at_s = None, None
    for event in events:
        name = event.get("event")
        if name == "attempt":
            latest, ended_at_s = event, None
        elif name == "attempt_finished" and event.get("state") in ("failed", "stopped"):
            ended_at_s = float(event.get("time_s") or 0.0)
        elif name == "attempt_finished" or (name == "run_finished" and ended_at_s is None):
            latest = None
    if latest is None or not latest.get("attempt_id"):
        return None
    if ended_at_s is not None and ended_at_s < failed_since_s:
        return None
    hosts = tuple(map(str, latest.get("hosts") or ()))
    return Unfinished(int(latest.get("attempt") or 0), str(latest["attempt_id"]), hosts, ended_at_s)


def _is_above(value: int | None, other: int | None) -> bool:
    return value is not None and (other is None or value > other)


def _larger(value: int | None, other: int | None) -> int | None:
    return value if _is_above(value, other) else other
