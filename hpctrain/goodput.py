"""How much of a run's time was progress, and what took the rest? Pure but for :func:`read_goodput`.

The time from each attempt's begin to its end, and between attempts of one launch, is cut into
pieces at the events that rank 0 and the launcher have written; each piece is progress or has one
cause (docs/survival.md). What a program reports may be anything: what does not fit is left out.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpctrain.attempt_times import Attempt, StepTime, gather_attempts, read_rank_steps
from hpctrain.rundir import read_events

CAUSES = (
    "start_up", "restart", "lost_work", "checkpoint_stall", "data_wait", "evaluation", "other",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Args:
    total_s: productive time and all losses.
    productive_s: in steps that counted: forward, backward, exchange, optimizer.
    losses_s: by cause, each of CAUSES.
    away_s: between launches, when nothing of the run was there; not in the total.
    steps: that counted.
    steps_lost: that had to be done again.
    """

    total_s: float
    productive_s: float
    losses_s: Mapping[str, float]
    away_s: float
    attempts: int
    steps: int
    steps_lost: int

    @property
    def share(self) -> float:
        """Productive time as a part of all time, 0 to 1."""
        return self.productive_s / self.total_s if self.total_s else 0.0

    def in_words(self) -> str:
        """Return the share and the losses, the largest first, in a line."""
        losses = sorted(self.losses_s.items(), key=lambda item: -item[1])
        words = [f"{_title(cause)} {s:.1f} s" for cause, s in losses if s >= 0.05]
        again = f" ({self.steps_lost} steps done again)" if self.steps_lost else ""
        return (
            f"goodput {self.share:.1%}: {self.productive_s:.1f} s of {self.total_s:.1f} s"
            f"{'; ' if words else ''}{', '.join(words)}{again}"
        )


def _title(cause: str) -> str:
    return "start-up" if cause == "start_up" else cause.replace("_", " ")


def read_goodput(path: Path) -> Goodput | None:
    """Return a run's goodput from its directory; None where no step was reported."""
    return measure_goodput(read_events(path), read_rank_steps(path))


def measure_goodput(
    events: Iterable[Mapping[str, Any]], rank_steps: Iterable[Mapping[str, Any]] = ()
) -> Goodput | None:
    """Return the goodput that events tell; None where no step was reported.

    Args:
        events: of ``events.jsonl``.
        rank_steps: rank 0's ``rank_step`` records, for what its steps waited for data (s).
    """
    attempts = gather_attempts(events, rank_steps)
    if not any(attempt.steps for attempt in attempts):
        return None
    spent_s: dict[str, float] = defaultdict(float)
    away_s, steps, lost = 0.0, 0, 0
    for number, attempt in enumerate(attempts):
        later = [each.first_step for each in attempts[number + 1 :]]
        kept_until = min((step for step in later if step is not None), default=sys.maxsize)
        is_last = number == len(attempts) - 1
        counted, again = _account(attempt, kept_until, spent_s, is_last=is_last)
        steps, lost = steps + counted, lost + again
        if not is_last:
            following = attempts[number + 1]
            gap_s = max(0.0, following.begun_s - attempt.end_s)
            if following.is_restart:
                spent_s["restart"] += gap_s
            else:
                away_s += gap_s
    losses_s = {cause: round(spent_s[cause], 3) for cause in CAUSES}
    productive_s = round(spent_s["productive"], 3)
    return Goodput(
        total_s=round(productive_s + sum(losses_s.values()), 3), productive_s=productive_s,
        losses_s=losses_s, away_s=round(away_s, 3), attempts=len(attempts), steps=steps,
        steps_lost=lost,
    )  # fmt: skip


def _account(
    attempt: Attempt, kept_until: int, spent_s: dict[str, float], *, is_last: bool
) -> tuple[int, int]:
    """Share out one attempt's time; return how many of its steps count, and how many do not.

    Args:
        kept_until: the step from which a later attempt went on.
    """
    cursor_s, before, counted, lost = attempt.begun_s, attempt.first_step or 0, 0, 0
    for index, step in enumerate(attempt.steps):
        new = step.step - before
        if new <= 0:
            continue
        span_s = max(0.0, step.at_s - cursor_s)
        busy_s, rest_s = _split_span(step, span_s, new, is_first=index == 0)
        again = min(new, max(0, step.step - max(kept_until, before)))
        part = again / new
        stall_s = min(busy_s, sum(s for saved, _, s in attempt.saves if saved == before))
        data_s = min(busy_s - stall_s, step.data_s * new)
        spent_s["checkpoint_stall"] += stall_s * (1 - part)
        spent_s["data_wait"] += data_s * (1 - part)
        spent_s["productive"] += (busy_s - stall_s - data_s) * (1 - part)
        spent_s["lost_work"] += busy_s * part
        if index == 0:
            spent_s["start_up"] += rest_s
        else:
            evaluating_s = _evaluation_s(attempt, cursor_s, step.at_s, rest_s)
            spent_s["evaluation"] += evaluating_s * (1 - part)
            spent_s["other"] += (rest_s - evaluating_s) * (1 - part)
            spent_s["lost_work"] += rest_s * part
        cursor_s, before = max(cursor_s, step.at_s), step.step
        counted, lost = counted + new - again, lost + again
    _account_end(attempt, cursor_s, before, spent_s, is_last=is_last)
    return counted, lost


def _split_span(step: StepTime, span_s: float, new: int, *, is_first: bool) -> tuple[float, float]:
    """Return the seconds in steps, and the others, since the last report."""
    if step.step_time_s is None:  # a foreign program: from report to report it does its steps
        return (0.0, span_s) if is_first else (span_s, 0.0)
    busy_s = min(span_s, step.step_time_s * new)
    return busy_s, span_s - busy_s


def _evaluation_s(attempt: Attempt, from_s: float, to_s: float, most_s: float) -> float:
    ends = [at_s for at_s in attempt.evaluated_s if from_s < at_s <= to_s]
    return min(most_s, max(ends) - from_s) if ends else 0.0


def _account_end(
    attempt: Attempt, cursor_s: float, last_step: int, spent_s: dict[str, float], *, is_last: bool
) -> None:
    """Share out the time from the last reported step to the attempt's end."""
    end_s = attempt.end_s
    rest_s = max(0.0, end_s - cursor_s)
    if not attempt.steps:
        broke = attempt.state == "failed" or not is_last
        spent_s["restart" if broke and attempt.resumed is None else "start_up"] += rest_s
        return
    evaluating_s = _evaluation_s(attempt, cursor_s, end_s, rest_s)
    spent_s["evaluation"] += evaluating_s
    cursor_s, rest_s = cursor_s + evaluating_s, rest_s - evaluating_s
    if attempt.state in ("done", "resumable"):
        saved = [at_s for step, at_s, _ in attempt.saves if step == last_step and at_s > cursor_s]
        saving_s = min(rest_s, max(saved) - cursor_s) if saved else 0.0
        spent_s["checkpoint_stall"] += saving_s
        spent_s["other"] += rest_s - saving_s
    elif attempt.state == "failed" or (attempt.state is None and not is_last):
        spent_s["restart"] += rest_s  # to notice, and to end the others
    else:
        spent_s["other"] += rest_s
